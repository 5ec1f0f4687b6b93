import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clora_core.apart import MAX_LORAS
from clora_core.windows import LAYOUTS, cut_windows, disjoint, window_boxes

SIDES_PX = st.integers(1, 300)
NUM_SUBJECTS = st.sampled_from(sorted(LAYOUTS))


@given(height=SIDES_PX, width=SIDES_PX, count=NUM_SUBJECTS)
def test_windows_are_square_inside_the_image_and_reach_its_edges_to_a_pixel(height, width, count):
    left, top, right, bottom = window_boxes(height, width, LAYOUTS[count]).T
    assert ((right - left) == (bottom - top)).all()
    assert (right > left).all()
    assert (left.min(), top.min()) == (0, 0)
    assert width - 1 <= right.max() <= width
    assert height - 1 <= bottom.max() <= height


@given(height=st.integers(32, 300), width=st.integers(32, 300), count=NUM_SUBJECTS)
def test_steps_between_windows_are_no_longer_than_the_stride(height, width, count):
    boxes = window_boxes(height, width, LAYOUTS[count])
    longest = LAYOUTS[count].stride * min(height, width) + 2
    for edge in boxes[:, :2].T:
        assert np.diff(np.unique(edge)).max(initial=0) <= longest


@given(height=st.integers(8, 300), width=st.integers(8, 300), count=NUM_SUBJECTS)
def test_every_image_has_room_for_as_many_disjoint_windows_as_subjects(height, width, count):
    boxes = window_boxes(height, width, LAYOUTS[count])
    apart = disjoint(boxes)
    found = [0]
    for window in range(1, len(boxes)):
        if apart[window, found].all():
            found.append(window)
    assert len(found) >= count


@pytest.mark.parametrize(("count", "num_windows"), [(1, 1), (2, 9), (3, 25), (4, 25)])
@pytest.mark.parametrize("side_px", [64, 65, 66, 67, 512, 1000])
def test_square_images_of_all_sizes_have_equally_many_windows(count, num_windows, side_px):
    assert len(window_boxes(side_px, side_px, LAYOUTS[count])) == num_windows


def test_there_are_windows_for_every_number_of_loras_that_gets_a_score():
    assert sorted(LAYOUTS) == list(range(1, MAX_LORAS + 1))


def test_disjoint_windows_may_touch_and_none_is_disjoint_from_itself():
    boxes = np.array([[0, 0, 2, 2], [2, 0, 4, 2], [1, 1, 3, 3], [0, 2, 2, 4]])
    assert disjoint(boxes).tolist() == [
        [False, True, False, True],
        [True, False, False, True],
        [False, False, False, False],
        [True, True, False, False],
    ]


def test_windows_of_an_image_are_its_pixels():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    (window,) = cut_windows(image, np.array([[2, 3, 6, 7]]))
    assert (window == image[3:7, 2:6]).all()
