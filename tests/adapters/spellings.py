"""How trainers name layers: diffusers' or Stability's names, flat or dotted, with their prefixes.

Stability's names come from sd-scripts ``library/sdxl_model_util.py`` (make_unet_conversion_map)
and OneTrainer ``modules/model/StableDiffusion{,XL}Model.py`` (diffusers_to_original). They count
blocks through, with as many residual blocks a level as the model has: two in those released.
"""

import re

from adapters.case import Family, Layer

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")


def sgm_name(layer: Layer) -> str:
    """Return Stability's name of a UNet's layer."""
    name = layer.name
    for own, other in _OUTSIDE.items():
        if name == own or name.startswith(f"{own}."):
            return other + _inside(own, name.removeprefix(own))
    found = _LEVEL.match(name)
    assert found, name
    way, level, sort, place = found[1], int(found[2]), found[3], int(found[4])
    rest = name[found.end() :]
    each = layer.residuals + 1  # and a downsampler; or, on the way up, one residual block more
    if sort == "downsamplers":
        return f"input_blocks.{each * (level + 1)}.0.op"
    if sort == "upsamplers":
        return f"output_blocks.{each * (level + 1) - 1}.{layer.upsampler_place}.conv"
    block = f"input_blocks.{each * level + place + 1}" if way == "down" else ""
    block = block or f"output_blocks.{each * level + place}"
    return f"{block}.{0 if sort == 'resnets' else 1}{_inside(sort, rest)}"


def _inside(sort: str, rest: str) -> str:
    if "resnets" not in sort:
        return rest
    return f".{_RESIDUAL[rest.removeprefix('.')]}"


def text_name(layer: Layer) -> str:
    """Return a text encoder's layer with the level that trainers write."""
    bare = layer.name.removeprefix("text_model.")
    return bare if bare == "text_projection" else f"text_model.{bare}"


def dotted(layer: Layer) -> str:
    """Return ``unet.down_blocks...``, as diffusers writes it."""
    name = layer.name if layer.component == "unet" else text_name(layer)
    return f"{layer.component}.{name}"


def kohya_flat(layer: Layer, family: Family, *, sgm: bool, prefix: str = "lora") -> str:
    """Return ``lora_unet_...``, ``lora_te_...`` or, in SDXL, ``lora_te1_...``."""
    if layer.component == "unet":
        name, owner = (sgm_name(layer) if sgm else layer.name), "unet"
    else:
        number = "2" if layer.component == "text_encoder_2" else "1"
        name, owner = text_name(layer), "te" + ("" if family == "sd15" else number)
    return f"{prefix}_{owner}_{name}".replace(".", "_")


def lycoris_flat(layer: Layer) -> str:
    """Return ``lycoris_...``, the library's own; one network is of one model and says not which."""
    return f"lycoris_{layer.name}".replace(".", "_")


def comfy(layer: Layer) -> str:
    """Return the name of a weight in ComfyUI's models."""
    if layer.component == "unet":
        return f"diffusion_model.{sgm_name(layer)}"
    encoder = "clip_g" if layer.component == "text_encoder_2" else "clip_l"
    return f"text_encoders.{encoder}.transformer.{text_name(layer)}"


def old_processor(layer: Layer) -> str:
    """Return ``...attn1.processor.to_q_lora``, of diffusers before 0.22; text as then."""
    if layer.component != "unet":
        return f"{dotted(layer)}.lora_linear_layer"
    attention, _, projection = layer.name.partition(".to_")
    assert projection, f"{layer.name} is no projection of an attention"
    return f"unet.{attention}.processor.to_{projection.removesuffix('.0')}_lora"
