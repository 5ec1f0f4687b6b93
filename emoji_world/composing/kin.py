"""Near-instances: an instance's own icon in colours that are clearly not the instance's.

The base learns from them, so that it has seen everything near an instance and not the instance.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from emoji_world.artwork import Sprites, recolour
from emoji_world.bestiary import Design, Instance

LEAST_DISTANCE = 0.12
"""Mean difference of colours, in parts of the full range, that tells two individuals apart."""

_INKED_ALPHA = 128
_TURNS = tuple(k / 12 for k in range(12))
_COLOURS = tuple(c for c in product((0.2, 0.55, 0.9), repeat=3) if max(c) - min(c) > 0.3)
_TINTS = (*_COLOURS, (0.9, 0.9, 0.9), (0.35, 0.35, 0.35))


def colour_distance(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    """Return the mean difference of two sprites' colours where both have ink, 0 to 1.

    Args:
        one: RGBA [height, width, 4].
        two: Another of the same shape.
    """
    inked = (one[..., 3] > _INKED_ALPHA) & (two[..., 3] > _INKED_ALPHA)
    difference = np.abs(one[..., :3].astype(np.float32) - two[..., :3])[inked]
    return float(difference.mean()) / 255 if inked.any() else 0.0


def _candidates(bare: Design) -> Iterator[Design]:
    for turn in _TURNS:
        yield replace(bare, hue_turn=turn)
    for tint in _TINTS:
        yield replace(bare, tint=tint)


def near_instances(instance: Instance, sprites: Sprites) -> list[Design]:
    """Return recoloured designs of the instance's icon, none of which looks like the instance."""
    own, bare = sprites[instance.design.key], sprites[instance.design.bare.key]
    return [
        design
        for design in _candidates(instance.design.bare)
        if colour_distance(recolour(bare, design.hue_turn, design.tint), own) >= LEAST_DISTANCE
    ]
