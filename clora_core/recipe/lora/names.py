"""Names of adapted layers: which layer of which part of a model a name means, for every tool.

What follows the layer's name in that of a tensor is in ``parts``. Whether a model has such a layer
is asked of the model (``placement``).
"""

import re

_COMPONENTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "oft_unet_": "unet",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "transformer.": "transformer",
}
KOHYA_OFT_PREFIX = "oft_unet_"
PEFT_PREFIX = "base_model.model."
"""Of names that say no component, because peft has wrapped one model and knows no other."""

_TEXT_LAYER = re.compile(r"(?:text_model\.)?encoder\.layers\.\d+\.")
"""How a layer of a CLIP text encoder begins; no UNet has one that does."""

_OLD_DIFFUSERS = re.compile(r"[._]processor[._](to_(?:q|k|v|out))_lora\Z")


def split_layer_name(layer: str) -> tuple[str, str]:
    """Return the component that a layer as written is in, and the rest of its name.

    Where the name says no component, a layer of a text encoder is ``text_encoder``'s, and any
    other one ``unet``'s.
    """
    rest = layer.removeprefix(PEFT_PREFIX)
    component = "text_encoder" if _TEXT_LAYER.match(rest) else "unet"
    for prefix, owner in _COMPONENTS.items():
        if layer.startswith(prefix):
            component, rest = owner, layer.removeprefix(prefix)
            break
    old = _OLD_DIFFUSERS.search(rest)
    if old is not None:
        rest = f"{rest[: old.start()]}.{'to_out.0' if old[1] == 'to_out' else old[1]}"
    return component, rest


def has_component(layer: str) -> bool:
    """Return whether the name of a layer as written says which component it is in."""
    return layer.startswith(tuple(_COMPONENTS))


def dotted_layer_name(layer: str) -> str | None:
    """Return the layer without its component, as peft names it; None for kohya's, without dots."""
    return None if layer.startswith("lora_") else split_layer_name(layer)[1]


def flat_layer_name(layer: str) -> str:
    """Return ``component.layer`` with the layer's dots as underscores, the same for every tool."""
    component, rest = split_layer_name(layer)
    flat = rest.replace(".", "_")
    if component.startswith("text_encoder"):
        # Trainers write this level; transformers has had and lost it.
        flat = flat.removeprefix("text_model_")
    return f"{component}.{flat}"
