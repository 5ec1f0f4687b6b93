"""Sizes of OFT and BOFT, by the shapes of their blocks."""

from collections.abc import Mapping
from math import isqrt, prod

from clora_core.recipe.lora.parts import Part
from clora_core.recipe.lora.shapes.size import PartsError, Shapes, UpdateSize

_ROTATIONS: Mapping[Part, frozenset[Part]] = {
    "oft_R": frozenset({"oft_R", "scaled_oft"}),
    "boft_R": frozenset({"boft_R", "boft_s"}),
    "oft_blocks": frozenset({"oft_blocks", "rescale", "alpha"}),
}
"""By the blocks of a rotation all that it may have, beside a bias."""
_BIASES: frozenset[Part] = frozenset({"bias", "diff_b"})


def rotation_size(parts: Shapes) -> UpdateSize:
    """Return the size of a rotation's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
    name: Part = next(part for part in _ROTATIONS if part in parts)
    stray = parts.keys() - _ROTATIONS[name] - _BIASES
    if stray:
        raise PartsError(f"has {', '.join(sorted(stray))} beside {name}, which is not known")
    if name == "oft_R":
        return _packed_rotation(parts)
    blocks = parts[name]
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or 0 in blocks:
        raise PartsError(f"has {name} of shape {list(blocks)}; blocks are square")
    num_rotated = blocks[-3] * blocks[-1]
    if name == "boft_R":
        gain = parts.get("boft_s")
        if len(blocks) != 4 or gain is None or len(gain) != 2 or 1 not in gain:
            raise PartsError("has a boft_R without four sides, or without its boft_s")
        if blocks[0] != 1:
            raise PartsError(
                f"has {blocks[0]} butterfly steps of peft's, whose order is not in the file"
            )
        return UpdateSize(prod(gain), num_rotated, None)
    if len(blocks) == 4 and (blocks[-1] % 2 or blocks[0] > 32 or blocks[1] % 2 ** (blocks[0] - 1)):
        raise PartsError(f"has oft_blocks of shape {list(blocks)}, which no butterfly has")
    rescale = parts.get("rescale")
    if rescale is not None and (rescale[:1] != (num_rotated,) or prod(rescale) != num_rotated):
        raise PartsError(f"has a rescale of shape {list(rescale)} for {num_rotated} outputs")
    return UpdateSize(num_rotated, None, None)


def _packed_rotation(parts: Shapes) -> UpdateSize:
    blocks = parts["oft_R"]
    side = _block_side(blocks[1]) if len(blocks) == 2 and 0 not in blocks else None
    if side is None:
        raise PartsError(
            f"has an oft_R of shape {list(blocks)}; each row is the upper half of a square block"
        )
    if prod(parts.get("scaled_oft", ())) != 1:
        raise PartsError(f"has a scaled_oft of shape {list(parts['scaled_oft'])}; it is one value")
    return UpdateSize(None, blocks[0] * side, None, repeats=blocks[0] == 1)


def _block_side(num_entries: int) -> int | None:
    """Return the side of a square whose strict upper half has this many entries."""
    side = (1 + isqrt(1 + 8 * num_entries)) // 2
    return side if side * (side - 1) // 2 == num_entries else None
