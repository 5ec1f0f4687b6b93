import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoji_world.measures.ranking import area_under_curve, area_with_interval

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(above=SCORES, below=SCORES)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_as_halves(above, below):
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below)
    assert area_under_curve(above, below) == pytest.approx(wins / (len(above) * len(below)))


def test_an_area_needs_both_kinds():
    with pytest.raises(ValueError, match="both kinds"):
        area_under_curve([], [1.0])


def test_the_interval_holds_the_area_and_is_wider_over_fewer_groups():
    random = np.random.default_rng(0)
    above, below = random.normal(1, 1, 60).tolist(), random.normal(0, 1, 60).tolist()

    def measured(num_groups):
        groups = [place % num_groups for place in range(60)]
        return area_with_interval(above, groups, below, groups)

    many, few = measured(60), measured(3)
    assert many.low < many.value < many.high
    assert many.value == few.value == area_under_curve(above, below)
    assert many == measured(60)
