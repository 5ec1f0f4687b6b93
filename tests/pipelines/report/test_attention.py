import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pipelines.report.attention import (
    GAP_PX,
    HEADER_PX,
    LABEL_PX,
    NUM_STEPS,
    TILE_PX,
    attention_sheet,
    chosen_steps,
    outline,
)


@given(st.integers(1, 300))
def test_steps_are_spread_evenly_from_the_first_to_the_last(num_steps: int):
    steps = chosen_steps(num_steps)
    assert steps[0] == 0
    assert steps[-1] == num_steps - 1
    assert len(set(steps)) == len(steps) == min(num_steps, NUM_STEPS)
    gaps = np.diff(steps)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_an_outline_is_every_inside_position_with_an_outside_neighbour(mask: np.ndarray):
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = all(0 <= a < height and 0 <= b < width and mask[a, b] for a, b in around)
            assert outline(mask)[y, x] == (mask[y, x] and not inside)


def test_a_tile_is_warm_where_its_concept_looks_and_outlined_where_its_mask_ends():
    image = np.full((64, 64, 3), 128, dtype=np.uint8)
    maps = np.zeros((2, 2, 4, 4), dtype=np.float32)
    maps[:, 0, :, 0] = 0.2  # the first concept looks to the left, faintly
    maps[:, 1, :, 3] = 7.0  # the second to the right, strongly
    masks = np.zeros((2, 3, 4, 4), dtype=bool)
    masks[:, 1, :, :2] = True
    sheet = np.asarray(
        Image.open(io.BytesIO(attention_sheet(image, maps, masks, ["one", "other"])))
    ).astype(int)
    assert sheet.shape == (HEADER_PX + 2 * (TILE_PX + GAP_PX), LABEL_PX + 2 * (TILE_PX + GAP_PX), 3)
    tiles = {
        (concept, step): sheet[
            HEADER_PX + concept * (TILE_PX + GAP_PX) :, LABEL_PX + step * (TILE_PX + GAP_PX) :
        ][:TILE_PX, :TILE_PX]
        for concept in range(2)
        for step in range(2)
    }
    for step in range(2):
        warmth = {c: tiles[c, step][..., 0] - tiles[c, step][..., 2] for c in range(2)}
        left, right = slice(4, 12), slice(TILE_PX - 12, TILE_PX - 4)
        assert warmth[0][20:90, left].mean() > warmth[0][20:90, right].mean() + 60
        assert warmth[1][20:90, right].mean() > warmth[1][20:90, left].mean() + 60
        # Scaled to their own peaks, a faint map and a strong one look alike.
        assert warmth[0][20:90, left].mean() == pytest.approx(
            warmth[1][20:90, right].mean(), abs=12
        )
        border = tiles[0, step][20:90, TILE_PX // 2 - 1].mean()
        assert border < tiles[0, step][20:90, TILE_PX // 2 + 6].mean() - 50
