"""The other spelling of a UNet's layers: Stability's own, in which most SDXL LoRAs are written.

Blocks are counted through instead of by level: ``input_blocks_4_1`` is the attention of the second
level's first layer. What a number means depends on how many layers each level has, so a model is
asked for that; where there is no model, names are read as those of the released ones.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_INPUT = re.compile(r"input_blocks_(\d{1,3})_(\d)_(.+)")
_MIDDLE = re.compile(r"middle_block_(\d)_(.+)")
_OUTPUT = re.compile(r"output_blocks_(\d{1,3})_(\d)_(.+)")
_OUTER = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
_RESIDUAL = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_RESNET = re.compile(r"(down|up)_blocks_(\d+)_resnets_(\d+)_")


@dataclass(frozen=True, slots=True)
class Levels:
    """How many residual blocks each level of a UNet has.

    Attributes:
        down: From the finest level to the coarsest.
        up: From the coarsest level to the finest.
    """

    down: tuple[int, ...]
    up: tuple[int, ...]


RELEASED = Levels(down=(2,) * 8, up=(3,) * 8)
"""Of all models that Stability has released; these have three or four levels."""


def levels(layers: Iterable[str]) -> Levels:
    """Return the levels of a UNet whose layers are called so (diffusers' names, ``_`` for dots)."""
    blocks = {found.groups() for layer in layers if (found := _RESNET.match(layer))}
    counts = Counter((half, int(level)) for half, level, _ in blocks)
    down, up = (
        tuple(counts[half, level] for level in range(sum(key[0] == half for key in counts)))
        for half in ("down", "up")
    )
    return Levels(down=down, up=up)


def diffusers_spelling(flat: str, model: Levels = RELEASED) -> str:
    """Return a UNet layer's name as diffusers spells it; a name that is none of these unchanged.

    Args:
        flat: The name with underscores for dots.
        model: The levels of the model that it is a layer of.
    """
    if outer := _OUTER.get(flat):
        return outer
    spelling = None
    if found := _INPUT.fullmatch(flat):
        spelling = _in_down_block(int(found[1]) - 1, int(found[2]), found[3], model.down)
    elif found := _MIDDLE.fullmatch(flat):
        part = int(found[1])  # residual, attention, residual
        inside = _inside(part % 2, part // 2, found[2]) if part <= 2 else None
        spelling = inside and f"mid_block_{inside}"
    elif found := _OUTPUT.fullmatch(flat):
        spelling = _in_up_block(int(found[1]), int(found[2]), found[3], model.up)
    return spelling or flat


def _in_down_block(number: int, part: int, rest: str, counts: Sequence[int]) -> str | None:
    # Each level ends with a block of its own that makes the image smaller.
    level, place = _level_and_place(number, [count + 1 for count in counts])
    if level is None:
        return None
    if place == counts[level]:
        return f"down_blocks_{level}_downsamplers_0_conv" if (part, rest) == (0, "op") else None
    inside = _inside(part, place, rest)
    return inside and f"down_blocks_{level}_{inside}"


def _in_up_block(number: int, part: int, rest: str, counts: Sequence[int]) -> str | None:
    level, place = _level_and_place(number, counts)
    if level is None:
        return None
    if rest == "conv" and part:
        # It follows the last residual block, and its attention if there is one.
        return f"up_blocks_{level}_upsamplers_0_conv" if place == counts[level] - 1 else None
    inside = _inside(part, place, rest)
    return inside and f"up_blocks_{level}_{inside}"


def _level_and_place(number: int, sizes: Sequence[int]) -> tuple[int | None, int]:
    for level, size in enumerate(sizes):
        if 0 <= number < size:
            return level, number
        number -= size
    return None, 0


def _inside(part: int, place: int, rest: str) -> str | None:
    if part == 1:
        return f"attentions_{place}_{rest}"
    if part == 0 and rest in _RESIDUAL:
        return f"resnets_{place}_{_RESIDUAL[rest]}"
    return None
