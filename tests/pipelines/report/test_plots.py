from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.bootstrap import Interval
from pipelines.report.plots import NUM_HEATS, bars, heat, histograms, scatter

NUMBER = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 6))


def interval(low: float, mean: float, high: float) -> Interval:
    return Interval(mean=mean, low=low, high=high, num_values=3, num_groups=2)


INTERVAL = st.tuples(NUMBER, NUMBER, NUMBER).map(lambda values: interval(*sorted(values)))


@given(st.lists(INTERVAL, min_size=1, max_size=5), st.booleans())
def test_bars_keep_order_and_distance_on_one_scale(found: list[Interval], with_zero: bool):
    drawn = bars([(str(n), i) for n, i in enumerate(found)], with_zero=with_zero)
    for bar, one in zip(drawn.bars, found, strict=True):
        for place, value in ((bar.low, one.low), (bar.mean, one.mean), (bar.high, one.high)):
            assert 0 <= place <= 100
            back = drawn.start + place / 100 * (drawn.end - drawn.start)
            assert back == pytest.approx(value, abs=1e-3)
    if with_zero:
        assert drawn.zero is not None


@given(st.lists(st.tuples(st.integers(1, 9999), INTERVAL), min_size=2, max_size=8))
def test_no_two_labels_of_one_side_share_a_line(found: list[tuple[int, Interval]]):
    plot = scatter([(str(n), cost, i) for n, (cost, i) in enumerate(found)])
    assert plot is not None
    for side in (True, False):
        lines = sorted(point.label_y for point in plot.points if point.is_left == side)
        assert all(below - above >= 13.9 for above, below in pairwise(lines))
    by_cost = sorted((found[int(point.name)][0], point.x) for point in plot.points)
    assert [x for _, x in by_cost] == sorted(x for _, x in by_cost)


@given(st.dictionaries(st.text(max_size=3), st.lists(NUMBER, min_size=1), min_size=1, max_size=4))
def test_a_histogram_counts_every_value_once(scores: dict[str, list[float]]):
    drawn, start, end = histograms(scores)
    assert start == min(value for values in scores.values() for value in values)
    assert start < end
    highest = max(max(one.heights) for one in drawn)
    assert highest == pytest.approx(100)
    for one in drawn:
        assert sum(height > 0 for height in one.heights) <= len(scores[one.name])
        assert one.num_values == len(scores[one.name])
        assert 0 <= one.mean <= 100


@given(NUMBER, NUMBER)
def test_heat_grows_with_the_value(one: float, other: float):
    low, high = heat(min(one, other), -1, 1), heat(max(one, other), -1, 1)
    assert low is not None
    assert high is not None
    assert 0 <= low <= high < NUM_HEATS
    assert heat(None, 0, 1) is None


def test_one_arm_is_no_plot_of_cost():
    assert scatter([("a", 10, interval(0, 0, 0))]) is None
