"""A mean and its interval, by resampling prompts and not images.

Images of one prompt differ in their seed only, so they are no independent evidence: whole groups
are drawn, with replacement, as often as there are groups. The interval holds the middle 95 % of the
means of such draws (percentile bootstrap, Efron 1979). The draws are seeded and every sum is over
sorted values, so neither the order of rows nor a second run changes a digit.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95

_CHUNK = 500


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval.

    Attributes:
        mean: Over all values.
        low: Lower end of the 95 % interval.
        high: Upper end.
        num_values: Values behind it.
        num_groups: Groups that were resampled; with one group the interval is empty and says so.
    """

    mean: float
    low: float
    high: float
    num_values: int
    num_groups: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Iterable[tuple[Hashable, float]], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the mean of ``values`` and its interval over their groups; None if there are none.

    Args:
        values: (group, value) pairs in any order.
        num_resamples: Draws. More steadies the last digit of the interval.
        seed: Of the draws.
    """
    groups: dict[Hashable, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(float(value))
    if not groups:
        return None
    members = sorted((sorted(each) for each in groups.values()), key=lambda each: (len(each), each))
    sums = np.array([math.fsum(each) for each in members])
    counts = np.array([len(each) for each in members], dtype=float)
    total = int(counts.sum())
    mean = math.fsum(value for each in members for value in each) / total
    means = _resampled_means(sums, counts, num_resamples, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(
        mean=mean, low=float(low), high=float(high), num_values=total, num_groups=len(members)
    )


def _resampled_means(
    sums: np.ndarray, counts: np.ndarray, num_resamples: int, random: np.random.Generator
) -> np.ndarray:
    """Return the mean of every draw, [resample]: its groups' sums over their counts."""
    num_groups = len(sums)
    shares = np.full(num_groups, 1 / num_groups)
    means: list[np.ndarray] = []
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        drawn = random.multinomial(num_groups, shares, size=size).astype(float)
        means.append((drawn @ sums) / (drawn @ counts))
    return np.concatenate(means)
