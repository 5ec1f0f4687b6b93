"""Where the marks of each plot lie. Numbers in, coordinates out; templates draw them.

Bars are in shares of 100 so that they stretch with their column while the text beside them stays
text; the one plot with labels inside has a size of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation.bootstrap import Interval

SCATTER_WIDTH, SCATTER_HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 16, 36
_LABEL_PX = 14
NUM_BINS = 28
NUM_HEATS = 8


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval on a scale of 0 to 100."""

    name: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Intervals on one scale; ``zero`` is where 0 lies, None if it is not on it."""

    bars: tuple[Bar, ...]
    start: float
    end: float
    zero: float | None


def bars(intervals: Sequence[tuple[str, Interval]], *, with_zero: bool = False) -> Bars:
    """Return intervals on a common scale that just holds them all (and 0 if asked for)."""
    values = [value for _, i in intervals for value in (i.low, i.high, i.mean)]
    values += [0.0] if with_zero or not values else []
    start, end = min(values), max(values)
    margin = (end - start) * 0.04 or 0.5
    start, end = start - margin, end + margin

    def on(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    return Bars(
        bars=tuple(
            Bar(name=name, low=on(i.low), mean=on(i.mean), high=on(i.high)) for name, i in intervals
        ),
        start=start,
        end=end,
        zero=on(0.0) if start < 0 < end else None,
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm in the plot of quality against cost; coordinates in pixels, y downwards."""

    name: str
    x: float
    y: float
    y_low: float
    y_high: float
    label_x: float
    label_y: float
    is_left: bool


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Quality against cost, the cost on a logarithmic scale."""

    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = SCATTER_WIDTH
    height: int = SCATTER_HEIGHT
    bottom: int = SCATTER_HEIGHT - _BOTTOM
    left: int = _LEFT
    right: int = SCATTER_WIDTH - _RIGHT


def scatter(arms: Sequence[tuple[str, float, Interval]]) -> Scatter | None:
    """Return the plot of (name, cost, quality) of each arm; None below two arms."""
    arms = [arm for arm in arms if arm[1] > 0]
    if len(arms) < 2:
        return None
    costs = [math.log10(cost) for _, cost, _ in arms]
    x_low, x_high = min(costs) - 0.08, max(costs) + 0.08
    y_low = min(quality.low for _, _, quality in arms)
    y_high = max(quality.high for _, _, quality in arms)
    y_ticks = _ticks(y_low, y_high)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    if y_high == y_low:
        y_high += 1

    def on_x(cost: float) -> float:
        share = (math.log10(cost) - x_low) / (x_high - x_low)
        return round(_LEFT + share * (SCATTER_WIDTH - _LEFT - _RIGHT), 1)

    def on_y(value: float) -> float:
        share = (value - y_low) / (y_high - y_low)
        return round(SCATTER_HEIGHT - _BOTTOM - share * (SCATTER_HEIGHT - _TOP - _BOTTOM), 1)

    points: list[Point] = []
    taken: list[tuple[bool, float]] = []
    for name, cost, quality in sorted(arms, key=lambda arm: -arm[2].mean):
        x, y = on_x(cost), on_y(quality.mean)
        is_left = x > SCATTER_WIDTH * 0.6
        label_y = y
        # Best first from the top: a label moves down until none of its side is on its line.
        while any(side == is_left and abs(label_y - other) < _LABEL_PX for side, other in taken):
            label_y += 1
        taken.append((is_left, label_y))
        points.append(
            Point(
                name=name,
                x=x,
                y=y,
                y_low=on_y(quality.low),
                y_high=on_y(quality.high),
                label_x=x - 9 if is_left else x + 9,
                label_y=label_y + 4,
                is_left=is_left,
            )
        )
    steps = sorted({round(cost) for _, cost, _ in arms})
    shown = [cost for i, cost in enumerate(steps) if i == 0 or on_x(cost) - on_x(steps[i - 1]) > 34]
    return Scatter(
        points=tuple(points),
        x_ticks=tuple((on_x(cost), f"{cost:,}") for cost in shown),
        y_ticks=tuple((on_y(value), f"{value:g}") for value in y_ticks),
    )


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often each score came out; heights and the mean on a scale of 0 to 100."""

    name: str
    heights: tuple[float, ...]
    mean: float
    num_values: int


def histograms(scores: Mapping[str, Sequence[float]]) -> tuple[tuple[Histogram, ...], float, float]:
    """Return one histogram per arm on common axes, and both ends of the score axis."""
    everything = [value for values in scores.values() for value in values]
    if not everything:
        return (), 0.0, 1.0
    start, end = min(everything), max(everything)
    end = end if end > start else start + 1.0
    shares: dict[str, list[float]] = {}
    for name, values in scores.items():
        counts = [0] * NUM_BINS
        for value in values:
            counts[min(int((value - start) / (end - start) * NUM_BINS), NUM_BINS - 1)] += 1
        shares[name] = [count / max(len(values), 1) for count in counts]
    highest = max(max(each) for each in shares.values()) or 1.0
    return (
        tuple(
            Histogram(
                name=name,
                heights=tuple(round(100 * share / highest, 1) for share in shares[name]),
                mean=round(100 * (sum(values) / len(values) - start) / (end - start), 2),
                num_values=len(values),
            )
            for name, values in scores.items()
            if values
        ),
        start,
        end,
    )


def heat(value: float | None, low: float, high: float) -> int | None:
    """Return how dark a cell is, 0 to ``NUM_HEATS - 1``; None for no value."""
    if value is None:
        return None
    share = (value - low) / (high - low) if high > low else 0.5
    return min(max(int(share * NUM_HEATS), 0), NUM_HEATS - 1)


def _ticks(low: float, high: float) -> list[float]:
    """Return about four round numbers within ``low`` and ``high``."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / 3))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= 5:
            step *= factor
            break
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)] or [low]
