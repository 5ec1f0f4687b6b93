"""Artwork is fetched for training only, so tests draw with painted blocks instead."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emoji_world.artwork import Sprites, all_designs
from emoji_world.backgrounds import PLACES
from emoji_world.composing.atlas import Atlas, make_atlas
from emoji_world.scenes import SIDE_PX, WIDE_PX


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    random = np.random.default_rng(0)
    blocks = {}
    for design in all_designs():
        block = np.full((96, 72, 4), 255, np.uint8)
        block[..., :3] = random.integers(0, 256, 3)
        block[:, 40:, :3] = random.integers(0, 256, 3)
        blocks[design.key] = block
    return blocks


@pytest.fixture(scope="session")
def atlas(sprites: Sprites) -> Atlas:
    """All sprites, and two painted backgrounds a place."""
    grounds = {
        width: np.full((len(PLACES), 2, SIDE_PX, width, 3), 200, np.uint8)
        for width in (SIDE_PX, WIDE_PX)
    }
    return make_atlas(sprites, grounds, torch.device("cpu"))


@pytest.fixture(scope="session")
def bare_atlas(sprites: Sprites):
    """Return what makes an atlas whose only background is the given one."""

    def made(ground: NDArray[np.uint8], width_px: int) -> Atlas:
        return make_atlas(sprites, {width_px: ground[None, None]}, torch.device("cpu"))

    return made
