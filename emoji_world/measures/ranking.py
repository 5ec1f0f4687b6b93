"""How well a score tells two kinds of pictures apart: the area under the curve, with an interval.

The area is the chance that a picture of the one kind scores above one of the other, ties counting
half. Scenes of one set of instances resemble each other, so the bootstrap draws sets, with all of
their scenes of both kinds.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_NUM_DRAWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Area:
    """An area under the curve, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def area_under_curve(
    above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray
) -> float:
    """Return how often a score of ``above`` beats one of ``below``; a tie is half a win.

    Raises:
        ValueError: There are no scores of a kind.
    """
    higher, lower = np.asarray(above, float), np.sort(np.asarray(below, float))
    if not len(higher) or not len(lower):
        raise ValueError("an area needs scores of both kinds")
    wins = np.searchsorted(lower, higher, "left") + np.searchsorted(lower, higher, "right")
    return float(wins.mean() / (2 * len(lower)))


def area_with_interval(
    above: Sequence[float],
    above_groups: Sequence[Hashable],
    below: Sequence[float],
    below_groups: Sequence[Hashable],
    *,
    seed: int = 0,
) -> Area:
    """Return the area and its interval.

    Args:
        above: Scores that should be high.
        above_groups: What each of them was drawn from: its set of instances.
        below: Scores that should be low.
        below_groups: Likewise.
        seed: Of the bootstrap.
    """
    groups = list(dict.fromkeys([*above_groups, *below_groups]))
    number = {group: index for index, group in enumerate(groups)}
    parts = [
        _by_group(np.asarray(scores, float), [number[group] for group in named], len(groups))
        for scores, named in ((above, above_groups), (below, below_groups))
    ]
    random = np.random.default_rng(seed)
    areas: list[float] = []
    while len(areas) < _NUM_DRAWS:
        drawn = random.integers(0, len(groups), len(groups))
        higher, lower = (np.concatenate([part[group] for group in drawn]) for part in parts)
        if len(higher) and len(lower):
            areas.append(area_under_curve(higher, lower))
    low, high = np.quantile(areas, [0.025, 0.975])
    return Area(value=area_under_curve(above, below), low=float(low), high=float(high))


def _by_group(scores: np.ndarray, numbers: Sequence[int], num_groups: int) -> list[np.ndarray]:
    named = np.asarray(numbers)
    return [scores[named == group] for group in range(num_groups)]
