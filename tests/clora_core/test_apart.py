from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.apart import MAX_LORAS, RIVAL_SHARE, apart_score
from clora_core.windows import LAYOUTS, disjoint, window_boxes


def brute_force(similarities, boxes, rival_share):
    """The definition, by every placing of the windows; None if none is disjoint."""
    num_windows, num_loras = similarities.shape
    best = None
    for chosen in product(range(num_windows), repeat=num_loras):
        if any(
            overlap(boxes[one], boxes[two])
            for place, one in enumerate(chosen)
            for two in chosen[:place]
        ):
            continue
        worst = min(
            worth(similarities[window], lora, rival_share) for lora, window in enumerate(chosen)
        )
        best = worst if best is None else max(best, worst)
    return best


def overlap(one, two):
    """Whether two boxes have a pixel in common, pixel by pixel."""

    def pixels(box):
        left, top, right, bottom = box
        return {(x, y) for x in range(left, right) for y in range(top, bottom)}

    return bool(pixels(one) & pixels(two))


def worth(likeness, lora, rival_share):
    others = [value for other, value in enumerate(likeness) if other != lora]
    return likeness[lora] - (rival_share * max(others) if others else 0)


@st.composite
def scenes(draw):
    """A few boxes on a grid of 6, and likenesses with many ties."""
    num_loras = draw(st.integers(1, MAX_LORAS))
    num_windows = draw(st.integers(1, {1: 12, 2: 10, 3: 8, 4: 7}[num_loras]))
    sides = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3))
    placed = draw(st.lists(sides, min_size=num_windows, max_size=num_windows))
    boxes = np.array([(left, top, left + side, top + side) for left, top, side in placed])
    likenesses = st.lists(st.integers(-4, 8), min_size=num_loras, max_size=num_loras)
    rows = draw(st.lists(likenesses, min_size=num_windows, max_size=num_windows))
    return np.array(rows, np.float32) / 8, boxes


@settings(max_examples=100, deadline=None)
@given(scene=scenes(), rival_share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_score_is_that_of_the_best_placing_of_disjoint_windows(scene, rival_share):
    similarities, boxes = scene
    found = apart_score(similarities, disjoint(boxes), rival_share=rival_share)
    assert found == brute_force(similarities, boxes, rival_share)


@settings(max_examples=50, deadline=None)
@given(scene=scenes(), order=st.permutations(range(MAX_LORAS)))
def test_the_order_of_loras_changes_nothing(scene, order):
    similarities, boxes = scene
    shuffled = similarities[:, [lora for lora in order if lora < similarities.shape[1]]]
    assert apart_score(shuffled, disjoint(boxes)) == apart_score(similarities, disjoint(boxes))


def test_one_lora_has_no_rival_and_gets_its_best_window():
    similarities = np.array([[0.2], [0.7], [0.5]], np.float32)
    boxes = window_boxes(8, 8, LAYOUTS[2])[:3]
    assert apart_score(similarities, disjoint(boxes)) == pytest.approx(0.7)


@pytest.mark.parametrize("num_loras", [0, MAX_LORAS + 1])
def test_without_loras_or_with_too_many_there_is_no_score(num_loras):
    boxes = window_boxes(64, 64, LAYOUTS[2])
    likeness = np.ones((len(boxes), num_loras), np.float32)
    assert apart_score(likeness, disjoint(boxes)) is None


def test_one_window_for_two_loras_is_no_score():
    boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6]])
    assert apart_score(np.ones((2, 2), np.float32), disjoint(boxes)) is None


def test_a_blend_scores_below_two_subjects_that_are_each_as_like_their_lora():
    """Two windows far apart, the rest empty; the blend is as like both as each subject is."""
    boxes = np.array([[0, 0, 4, 4], [4, 0, 8, 4]])
    subjects = np.array([[0.8, 0.1], [0.1, 0.8]], np.float32)
    blended = np.array([[0.8, 0.8], [0.8, 0.8]], np.float32)
    assert apart_score(subjects, disjoint(boxes)) == pytest.approx(0.8 - RIVAL_SHARE * 0.1)
    assert apart_score(blended, disjoint(boxes)) == pytest.approx(0.8 - RIVAL_SHARE * 0.8)
