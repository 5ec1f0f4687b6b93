"""Artwork is fetched for training only, so tests draw with painted blocks instead."""

import numpy as np
import pytest

from emoji_world.artwork import Sprites, all_designs


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    random = np.random.default_rng(0)
    blocks = {}
    for design in all_designs():
        block = np.full((96, 72, 4), 255, np.uint8)
        block[..., :3] = random.integers(0, 256, 3)
        blocks[design.key] = block
    return blocks
