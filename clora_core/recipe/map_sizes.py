"""Sizes of attention maps, and which sizes of image they allow.

A UNet's configuration says how large its cross-attentions are, so that a manifest can be checked
before a model is loaded. What it leaves open is measured when the model is there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

SMALLEST_SIDE = 16
"""Of the maps that are chosen where none are asked for; coarser ones show too little."""

_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
_MID = {"UNetMidBlock2DCrossAttn": True, "UNetMidBlock2D": False, None: False}


@dataclass(frozen=True, kw_only=True, slots=True)
class MapGrid:
    """The sizes that a base model's cross-attentions have at its own size.

    Attributes:
        latent_side: Of its square latents.
        sides: Of its cross-attentions, ascending, each once.
        image_scale: Pixels a side for one latent position.
    """

    latent_side: int
    sides: tuple[int, ...]
    image_scale: int

    def multiple_px(self, map_size: int | None) -> int:
        """Return what both sides of an image must be a multiple of.

        Raises:
            ValueError: As ``map_side``.
        """
        return self.image_scale * (self.latent_side // map_side(self.sides, map_size))


def map_side(sides: Collection[int], map_size: int | None) -> int:
    """Return the side of the maps among the cross-attentions' sides.

    Args:
        sides: At the model's own size.
        map_size: Wanted side; None for the coarsest of at least ``SMALLEST_SIDE``.

    Raises:
        ValueError: No cross-attention has that size; the message lists the sizes there are.
    """
    if map_size is None:
        fine = [side for side in sides if side >= SMALLEST_SIDE]
        map_size = min(fine, default=max(sides, default=None))
    if map_size is None or map_size not in sides:
        raise ValueError(
            f"no cross-attention with maps of {map_size}x{map_size}; this model has "
            f"{sorted(set(sides))}; set map_size to one of them or leave it out"
        )
    return map_size


def size_problem(width_px: int, height_px: int, multiple_px: int) -> str | None:
    """Return why maps of an image of this size don't lie on whole positions, None if they do."""
    if width_px % multiple_px == 0 and height_px % multiple_px == 0:
        return None
    return (
        f"size {width_px}x{height_px} px: both sides must be multiples of {multiple_px} for this "
        "base model, so that attention maps lie on whole positions"
    )


def map_grid(unet: Mapping[str, Any], *, image_scale: int) -> MapGrid | None:
    """Return the sizes that a UNet's configuration says; None where it leaves them open.

    Args:
        unet: Its ``config.json``.
        image_scale: Pixels a side for one latent position.
    """
    side, down, up = (unet.get(name) for name in ("sample_size", *_BLOCK_LISTS))
    if type(side) is not int or not _is_names(down) or not _is_names(up):
        return None
    down, up = cast("Sequence[str]", down), cast("Sequence[str]", up)
    middle = unet.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    is_known = all(name in _DOWN for name in down) and all(name in _UP for name in up)
    num_levels = len(down)
    is_even = num_levels > 0 and side > 0 and side % 2 ** (num_levels - 1) == 0
    if not is_known or middle not in _MID or len(up) != num_levels or not is_even:
        return None
    depths = _depths(unet, num_levels)
    if depths is None or unet.get("dual_cross_attention"):
        return None
    levels = {level for level, name in enumerate(down) if _DOWN[name] and depths[level]}
    levels |= {
        level for level, name in enumerate(reversed(up)) if _UP[name] and depths[level]
    }  # the first block up is at the coarsest level
    if _MID[middle] and depths[-1]:
        levels.add(num_levels - 1)
    sides = tuple(sorted({side // 2**level for level in levels}))
    return MapGrid(latent_side=side, sides=sides, image_scale=image_scale) if sides else None


_BLOCK_LISTS = ("down_block_types", "up_block_types")


def _depths(unet: Mapping[str, Any], num_levels: int) -> Sequence[int] | None:
    """Return how many transformer blocks an attention has by level; None where it is unclear."""
    given = unet.get("transformer_layers_per_block", 1)
    depths = [given] * num_levels if type(given) is int else given
    is_plain = isinstance(depths, list) and all(
        type(depth) is int for depth in cast("list[object]", depths)
    )
    if not is_plain or len(cast("list[int]", depths)) != num_levels:
        return None
    return None if unet.get("reverse_transformer_layers_per_block") else cast("list[int]", depths)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(name, str) for name in cast("list[object]", value)
    )
