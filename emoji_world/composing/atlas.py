"""Everything that can stand in a scene, as tensors: sprites, who is whose kin, and places."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoji_world.artwork import SPRITE_SIDE_PX, Sprites
from emoji_world.backgrounds import PLACES, draw_some
from emoji_world.bestiary import CLASSES, INSTANCES, NOUNS, SIBLINGS, Design
from emoji_world.composing.kin import near_instances
from emoji_world.scenes import SIDE_PX, WIDE_PX


@dataclass(frozen=True, kw_only=True)
class Family:
    """Designs by what they are of, rows padded to one length.

    Attributes:
        sprites: Index of each design's sprite, [group, design].
        hue_turns: Turn of its hues, [group, design].
        tints: Its tint, -1 where it has none, [group, design, 3].
        sizes: How many designs a group has, [group].
    """

    sprites: Tensor
    hue_turns: Tensor
    tints: Tensor
    sizes: Tensor


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All sprites and all places on the device.

    Attributes:
        sprites: Colours weighed by cover, then the cover itself, 0 to 1; float32
            [sprite, 4, 96, 96], in the upper left corner.
        heights: Of each sprite in pixels, [sprite].
        widths: Likewise.
        classes: Designs of each noun that the model calls by it.
        siblings: Other designs of each noun, like its instances.
        instances: The one design of each instance.
        near: The icon of each instance in other colours.
        instance_nouns: Noun of each instance, [instance].
        own_instances: Instances of each noun, -1 where there are fewer, [noun, most].
        backgrounds: By width of the picture, uint8 [place, number, 64, width, 3].
    """

    sprites: Tensor
    heights: Tensor
    widths: Tensor
    classes: Family
    siblings: Family
    instances: Family
    near: Family
    instance_nouns: Tensor
    own_instances: Tensor
    backgrounds: dict[int, Tensor]


def _family(groups: Sequence[Sequence[Design]], index: dict[str, int], *, bare: bool) -> Family:
    """Return the designs; ``bare`` ones are recoloured while they are drawn."""
    most = max(1, *map(len, groups))
    sprites = torch.zeros(len(groups), most, dtype=torch.long)
    turns, tints = torch.zeros(len(groups), most), torch.full((len(groups), most, 3), -1.0)
    for row, designs in enumerate(groups):
        for column, design in enumerate(designs):
            sprites[row, column] = index[design.bare.key if bare else design.key]
            if bare:
                turns[row, column] = design.hue_turn
                if design.tint is not None:
                    tints[row, column] = torch.tensor(design.tint)
    sizes = torch.tensor([len(designs) for designs in groups])
    return Family(sprites=sprites, hue_turns=turns, tints=tints, sizes=sizes)


def _on(family: Family, device: torch.device) -> Family:
    return Family(**{name: tensor.to(device) for name, tensor in vars(family).items()})


def make_atlas(
    sprites: Sprites, backgrounds: dict[int, NDArray[np.uint8]], device: torch.device
) -> Atlas:
    """Return the atlas of all sprites and of backgrounds of ``by_width``."""
    index = {key: number for number, key in enumerate(sprites)}
    stacked = np.zeros((len(sprites), SPRITE_SIDE_PX, SPRITE_SIDE_PX, 4), np.float32)
    for number, sprite in enumerate(sprites.values()):
        stacked[number, : sprite.shape[0], : sprite.shape[1]] = sprite.astype(np.float32) / 255
    stacked[..., :3] *= stacked[..., 3:]
    own = [[k for k, i in enumerate(INSTANCES) if i.noun == noun] for noun in NOUNS]
    most = max(map(len, own))
    families = {
        "classes": _family([CLASSES[noun] for noun in NOUNS], index, bare=False),
        "siblings": _family([SIBLINGS[noun] for noun in NOUNS], index, bare=False),
        "instances": _family([[i.design] for i in INSTANCES], index, bare=False),
        "near": _family([near_instances(i, sprites) for i in INSTANCES], index, bare=True),
    }
    return Atlas(
        sprites=torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().to(device),
        heights=torch.tensor([s.shape[0] for s in sprites.values()], device=device),
        widths=torch.tensor([s.shape[1] for s in sprites.values()], device=device),
        **{name: _on(family, device) for name, family in families.items()},
        instance_nouns=torch.tensor([NOUNS.index(i.noun) for i in INSTANCES], device=device),
        own_instances=torch.tensor([o + [-1] * (most - len(o)) for o in own], device=device),
        backgrounds={
            width: torch.from_numpy(pictures).to(device) for width, pictures in backgrounds.items()
        },
    )


def draw_backgrounds(each: int, pool: Any, *, seed: int) -> Any:
    """Start drawing ``each`` pictures of every place in both widths; ``get`` waits for them.

    Args:
        each: Pictures of a place and width.
        pool: A ``multiprocessing`` pool.
        seed: Names the pictures.
    """
    step = min(64, each)
    jobs = [
        (place, width, range(at, min(at + step, each)))
        for width in (SIDE_PX, WIDE_PX)
        for place in PLACES
        for at in range(0, each, step)
    ]
    return pool.map_async(partial(draw_some, seed=seed, side_px=SIDE_PX), jobs)


def by_width(parts: Sequence[NDArray[np.uint8]]) -> dict[int, NDArray[np.uint8]]:
    """Return what ``draw_backgrounds`` drew, by width: [place, each, 64, width, 3]."""
    halves = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    return {
        width: np.concatenate(half).reshape(len(PLACES), -1, SIDE_PX, width, 3)
        for width, half in zip((SIDE_PX, WIDE_PX), halves, strict=True)
    }
