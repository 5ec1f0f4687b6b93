"""The other spelling of a UNet's layers: Stability's own, in which most SDXL LoRAs are written.

Blocks are counted through instead of by level: ``input_blocks_4_1`` is the attention of the second
level's first layer. The count is that of two layers a level, which all released models have.
"""

import re

_INPUT = re.compile(r"^input_blocks_(\d+)_(\d+)_(.+)$")
_MIDDLE = re.compile(r"^middle_block_(\d+)_(.+)$")
_OUTPUT = re.compile(r"^output_blocks_(\d+)_(\d+)_(.+)$")
_LAYERS_A_LEVEL = 2
_RESIDUAL = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}


def diffusers_spelling(flat: str) -> str:
    """Return a layer's name (dots as underscores) as diffusers spells it; others unchanged."""
    if found := _INPUT.match(flat):
        level, place = divmod(int(found[1]) - 1, _LAYERS_A_LEVEL + 1)
        if int(found[1]) == 0:
            return "conv_in"
        if found[3] == "op":
            return f"down_blocks_{level}_downsamplers_0_conv"
        return f"down_blocks_{level}_{_inside(int(found[2]), place, found[3])}"
    if found := _MIDDLE.match(flat):
        part = int(found[1])  # residual, attention, residual
        return f"mid_block_{_inside(part % 2, part // 2, found[2])}"
    if found := _OUTPUT.match(flat):
        level, place = divmod(int(found[1]), _LAYERS_A_LEVEL + 1)
        if found[3] == "conv":
            return f"up_blocks_{level}_upsamplers_0_conv"
        return f"up_blocks_{level}_{_inside(int(found[2]), place, found[3])}"
    return flat


def _inside(part: int, place: int, rest: str) -> str:
    if part == 1:
        return f"attentions_{place}_{rest}"
    return f"resnets_{place}_{_RESIDUAL.get(rest, rest)}"
