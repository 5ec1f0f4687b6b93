"""Names of adapted layers: which layer of which part of a model a name means, for every tool.

    kohya            lora_unet_down_blocks_0_..._to_q
    LyCORIS alone    lycoris_down_blocks_0_..._to_q
    diffusers, peft  unet.down_blocks.0....to_q
    peft's own       base_model.model.down_blocks.0....to_q
    old diffusers    unet.down_blocks.0....attn1.processor.to_q_lora
    kohya, SDXL      lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q
    ComfyUI          diffusion_model.input_blocks.4.1....attn1.to_q

What a layer is called does not depend on which of its tensors follows (``parts``). Stability's
names of layers are read by ``sgm_names``; whether a model has such a layer is asked of the model
(``placement``).
"""

import re

from clora_core.recipe.lora.sgm_names import diffusers_spelling

_COMPONENTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "oft_unet_": "unet",
    "unet.unet.": "unet",  # as diffusers' scripts of 2023 saved it
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "lora_te.": "text_encoder",
    "lora_te1.": "text_encoder",
    "lora_te2.": "text_encoder_2",
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "clip_l.transformer.": "text_encoder",
    "clip_h.transformer.": "text_encoder",
    "clip_g.transformer.": "text_encoder_2",
    "transformer.": "transformer",
}
"""What names begin with, in each common convention; where one begins another, it stands first."""

COMFYUI_PREFIX = "diffusion_model."
KOHYA_OFT_PREFIX = "oft_unet_"
"""Of the names in kohya's OFT files."""

PEFT_PREFIX = "base_model.model."
"""Of peft's own names, which mostly say no component: peft has wrapped one model."""

_NUMBERED = ("lora_te1", "lora_te2")

_LYCORIS = "lycoris_"
"""Of names that say no component either, for the same reason."""

FLAT_PREFIXES = ("lora_", _LYCORIS, KOHYA_OFT_PREFIX)
"""Of names that have underscores for the layer's dots."""

_TEXT_LAYER = re.compile(r"(?:text_model[._])?encoder[._]layers[._]\d+[._]")
"""How a layer of a CLIP text encoder begins; no UNet has one that does."""

_OLD_DIFFUSERS = re.compile(
    r"[._](?P<text>self_attn[._])?(?:processor[._])?to_(?P<which>q|k|v|out)_lora\Z"
)


def split_layer_name(layer: str) -> tuple[str, str]:
    """Return the component that a layer as written is in, and the rest of its name.

    Where the name says no component, a layer of a text encoder is ``text_encoder``'s, and any
    other one ``unet``'s.
    """
    rest = layer.removeprefix(PEFT_PREFIX)
    for prefix, owner in _COMPONENTS.items():
        if rest.startswith(prefix):
            component, rest = owner, rest.removeprefix(prefix)
            break
    else:
        rest = rest.removeprefix(_LYCORIS)
        component = "text_encoder" if _TEXT_LAYER.match(rest) else "unet"
    old = _OLD_DIFFUSERS.search(rest)
    if old is not None:
        rest = f"{rest[: old.start()]}.{_renamed(old)}"
    return component, rest


def _renamed(old: re.Match[str]) -> str:
    which = old["which"]
    if old["text"]:
        return f"self_attn.{which}_proj"
    return "to_out.0" if which == "out" else f"to_{which}"


def has_component(layer: str) -> bool:
    """Return whether the name of a layer as written says which component it is in.

    peft's own names count as saying none, because their strength stands beside the file.
    """
    return layer.startswith(tuple(_COMPONENTS))


def has_numbered_text_encoder(layer: str) -> bool:
    """Return whether the name of a layer has kohya's number of a text encoder, as SDXL's have."""
    return layer.startswith(_NUMBERED)


def dotted_layer_name(layer: str) -> str | None:
    """Return the layer without its component, as peft names it; None for names without dots."""
    if "." not in layer and layer.startswith(FLAT_PREFIXES):
        return None
    component, rest = split_layer_name(layer)
    inside = layer.removeprefix(PEFT_PREFIX)
    # peft has wrapped a model that has the component inside.
    is_inside = inside != layer and inside.startswith(f"{component}.")
    return f"{component}.{rest}" if is_inside else rest


def flat_layer_name(layer: str) -> str:
    """Return ``component.layer`` with the layer's dots as underscores, the same for every tool."""
    component, rest = split_layer_name(layer)
    flat = rest.replace(".", "_")
    if component.startswith("text_encoder"):
        # Trainers write this level; transformers has had and lost it.
        flat = flat.removeprefix("text_model_")
    elif component == "unet":
        flat = diffusers_spelling(flat)
    return f"{component}.{flat}"
