"""``dino_apart`` with the committed weights: two instances score above their blend."""

import numpy as np
import pytest
from PIL import Image

from clora_core.apart import apart_score
from clora_core.dino import DinoScorer, reference_centroid
from clora_core.windows import LAYOUTS, cut_windows, disjoint, window_boxes
from emoji_world import dino_dir
from emoji_world.measures.renderer import Renderer

NAMES = ("polar-bear", "indigo-flower")
NOUNS = ("bear", "flower")
NUM_REFERENCES = 2


@pytest.fixture(scope="module")
def pictures():
    """What each LoRA makes alone, a few seeds of it, in few steps."""
    renderer = Renderer("cpu", num_steps=8, guide_until_step=0, refine_steps=())
    return {
        name: renderer.render(
            [
                renderer.row(f"a {noun}", [name], seed, "single")
                for seed in range(NUM_REFERENCES + 1)
            ]
        )
        for name, noun in zip(NAMES, NOUNS, strict=True)
    }


def beside(left, right):
    """Return two pictures at half their size, side by side in the lower half of a grey one."""
    image = np.full((64, 64, 3), 128, np.uint8)
    for place, picture in ((0, left), (32, right)):
        image[32:, place : place + 32] = Image.fromarray(picture).resize((32, 32))
    return image


def test_two_instances_score_above_blends_of_them_one_twice_and_none(pictures):
    dino = DinoScorer.load(dino_dir())
    centroids = np.stack(
        [reference_centroid(dino.features(pictures[name][:NUM_REFERENCES])) for name in NAMES]
    )
    boxes = window_boxes(64, 64, LAYOUTS[2])

    def score(left, right):
        likeness = dino.features(cut_windows(beside(left, right), boxes)) @ centroids.T
        found = apart_score(likeness, disjoint(boxes))
        assert found is not None
        return found

    one, two = (pictures[name][NUM_REFERENCES] for name in NAMES)
    mixed = ((one.astype(np.uint16) + two) // 2).astype(np.uint8)
    halves = np.concatenate([one[:, :32], two[:, 32:]], axis=1)
    both = min(score(one, two), score(two, one))
    assert both > score(mixed, mixed)
    assert both > score(halves, halves)
    assert both > score(one, one)
    assert both > score(np.full_like(one, 128), np.full_like(one, 128))
