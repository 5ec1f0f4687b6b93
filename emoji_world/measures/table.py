"""A measured figure with its interval, and the table that people read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.96


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table.

    Attributes:
        name: What was measured.
        value: The figure.
        low: Lower end of its 95 % interval.
        high: Upper end.
        count: Measurements behind it.
        aim: What it should reach, in words; empty if it is only reported.
    """

    name: str
    value: float
    low: float
    high: float
    count: int
    aim: str = ""


def of_share(name: str, hits: NDArray[np.bool_] | Sequence[bool], aim: str = "") -> Figure:
    """Return the share of hits with Wilson's interval."""
    array = np.asarray(hits, dtype=float)
    count = len(array)
    share = float(array.mean()) if count else 0.0
    scale = 1 + _Z**2 / max(count, 1)
    middle = (share + _Z**2 / (2 * max(count, 1))) / scale
    spread = share * (1 - share) / max(count, 1) + _Z**2 / (4 * max(count, 1) ** 2)
    half = _Z / scale * math.sqrt(spread)
    return Figure(
        name=name, value=share, low=middle - half, high=middle + half, count=count, aim=aim
    )


def of_mean(
    name: str, values: NDArray[np.float64] | Sequence[float], aim: str = "", seed: int = 0
) -> Figure:
    """Return the mean with the bootstrap's interval over the values."""
    array = np.asarray(values, dtype=float)
    random = np.random.default_rng(seed)
    means = array[random.integers(0, len(array), (2000, len(array)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(
        name=name,
        value=float(array.mean()),
        low=float(low),
        high=float(high),
        count=len(array),
        aim=aim,
    )


def markdown(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| figure | measured | 95 % interval | n | aim |", "|---|---|---|---|---|"]
    lines += [
        f"| {f.name} | {f.value:.3f} | {f.low:.3f} to {f.high:.3f} | {f.count} | {f.aim} |"
        for f in figures
    ]
    return "\n".join(lines)
