"""What each LoRA loses beside each other one, from stored features alone.

The entry of (LoRA, neighbour) is how like its own references the LoRA's subject is, on average over
the images that hold both. The diagonal is what it reaches alone: how like each of its reference
images is to the mean of the others. So a row that is lower off its diagonal is a LoRA that suffers,
and a low column one that makes others suffer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.results import Result


@dataclass(frozen=True, kw_only=True)
class Interference:
    """A matrix of likeness to one's own references.

    Attributes:
        arm: Whose images.
        loras: Names, of rows and columns alike.
        scores: [LoRA, neighbour]; None where no image holds both, or alone was not measured.
        counts: Images (on the diagonal: references) behind each.
    """

    arm: str
    loras: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    counts: tuple[tuple[int, ...], ...]


def interference(
    results: Iterable[Result], *, arm: str, alone: Mapping[str, tuple[float, int]]
) -> Interference:
    """Return the matrix of one arm.

    Args:
        results: Of any arms.
        arm: The one that counts.
        alone: Likeness and number of references, by LoRA name; see ``likeness_alone``.
    """
    cells: dict[tuple[str, str], list[float]] = {}
    for result in results:
        if result.arm == arm:
            for name, likeness in result.lora_scores.items():
                for neighbour in result.lora_scores:
                    if neighbour != name:
                        cells.setdefault((name, neighbour), []).append(likeness)
    names = tuple(sorted({name for pair in cells for name in pair}))

    def score(name: str, neighbour: str) -> float | None:
        if name == neighbour:
            return alone[name][0] if name in alone else None
        found = sorted(cells.get((name, neighbour), ()))
        return sum(found) / len(found) if found else None

    def count(name: str, neighbour: str) -> int:
        if name == neighbour:
            return alone[name][1] if name in alone else 0
        return len(cells.get((name, neighbour), ()))

    return Interference(
        arm=arm,
        loras=names,
        scores=tuple(tuple(score(name, other) for other in names) for name in names),
        counts=tuple(tuple(count(name, other) for other in names) for name in names),
    )


def likeness_alone(features: Sequence[np.ndarray]) -> float | None:
    """Return the mean likeness of each reference to the mean of the others; None below two.

    Args:
        features: Unit-length features of one LoRA's references, [feature] each.
    """
    if len(features) < 2:
        return None
    stacked = np.asarray(features, dtype=np.float64)
    others = (stacked.sum(axis=0) - stacked) / (len(stacked) - 1)
    return float((stacked * others).sum(axis=1).mean())
