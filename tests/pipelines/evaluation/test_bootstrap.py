"""The interval against what can be worked out by hand, and what must hold of any."""

import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation.bootstrap import _resampled_means, mean_interval

PAIRS = st.lists(
    st.tuples(st.integers(0, 4), st.floats(-10, 10, allow_nan=False, width=32)),
    min_size=1,
    max_size=20,
)


def test_the_spread_of_resampled_means_is_that_of_the_closed_form():
    """Groups of one size: variance of the bootstrap mean = plug-in variance / number of groups."""
    sums = np.random.default_rng(1).normal(size=30) * 4
    means = _resampled_means(sums, np.full(30, 4.0), 40_000, np.random.default_rng(2))
    expected = np.var(sums / 4) / 30
    # The variance of 40,000 draws has a relative standard error of sqrt(2 / 40,000) = 0.7 %.
    assert np.var(means) == pytest.approx(expected, rel=0.03)
    assert means.mean() == pytest.approx((sums / 4).mean(), abs=4 * math.sqrt(expected / 40_000))


def test_quantiles_are_those_of_every_possible_draw_of_three_groups():
    values = [("a", 0.0), ("b", 1.0), ("c", 5.0), ("c", 7.0)]
    sums, counts = {"a": 0.0, "b": 1.0, "c": 12.0}, {"a": 1, "b": 1, "c": 2}
    draws = [
        sum(sums[g] for g in draw) / sum(counts[g] for g in draw)
        for draw in product("abc", repeat=3)
    ]
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    found = mean_interval(values)
    assert found is not None
    assert found.mean == 13 / 4
    # 27 equally likely draws of 10 different means, none with a border at the quantiles asked for.
    assert (found.low, found.high) == pytest.approx((low, high))


def test_seeds_of_one_prompt_do_not_narrow_the_interval():
    few = [("a", 0.0), ("b", 1.0), ("c", 2.0)]
    once, often = mean_interval(few), mean_interval(few * 50)
    assert once is not None
    assert often is not None
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.num_values == 150
    assert often.num_groups == 3


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_neither_order_nor_names_of_groups_change_a_digit(
    pairs: list[tuple[int, float]], shuffler: random.Random
):
    first = mean_interval(pairs, num_resamples=200)
    shuffled = [(f"group {9 - group}", value) for group, value in pairs]
    shuffler.shuffle(shuffled)
    assert mean_interval(shuffled, num_resamples=200) == first


@given(PAIRS)
@settings(max_examples=40, deadline=None)
def test_the_interval_lies_within_the_values(pairs: list[tuple[int, float]]):
    found = mean_interval(pairs, num_resamples=200)
    assert found is not None
    values = [value for _, value in pairs]
    slack = 1e-9
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_nothing_has_no_mean():
    assert mean_interval([]) is None
