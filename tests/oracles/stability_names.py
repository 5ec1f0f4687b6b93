"""Stability's names of a UNet's layers, found by walking through the model.

Blocks get their numbers from a counter that runs over what the model has, so nothing is assumed of
how many layers a level has.
"""

from itertools import chain

from diffusers import UNet2DConditionModel
from torch import nn

_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def stability_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """Return Stability's name of every layer that has weights, by its name in diffusers."""
    blocks = dict(_OUTER)
    number = 1
    for level, block in enumerate(unet.down_blocks):
        for place in range(len(block.resnets)):
            blocks[f"down_blocks.{level}.resnets.{place}"] = f"input_blocks.{number}.0"
            blocks[f"down_blocks.{level}.attentions.{place}"] = f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    mid = ("resnets.0", "attentions.0", "resnets.1")
    blocks |= {f"mid_block.{part}": f"middle_block.{i}" for i, part in enumerate(mid)}
    number = 0
    for level, block in enumerate(unet.up_blocks):
        for place in range(len(block.resnets)):
            blocks[f"up_blocks.{level}.resnets.{place}"] = f"output_blocks.{number}.0"
            blocks[f"up_blocks.{level}.attentions.{place}"] = f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            part = 1 + hasattr(block, "attentions")
            name = f"output_blocks.{number - 1}.{part}.conv"
            blocks[f"up_blocks.{level}.upsamplers.0.conv"] = name
    return {
        name: _renamed(name, blocks) for name, module in unet.named_modules() if _is_layer(module)
    }


def _is_layer(module: nn.Module) -> bool:
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return any(True for _ in own)


def _renamed(layer: str, blocks: dict[str, str]) -> str:
    if layer in blocks:
        return blocks[layer]
    parts = layer.split(".")
    count = 3 if layer.startswith("mid_block") else 4
    block, inside = ".".join(parts[:count]), ".".join(parts[count:])
    return f"{blocks[block]}.{_RESIDUAL[inside] if 'resnets' in block else inside}"
