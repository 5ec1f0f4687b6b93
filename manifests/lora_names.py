"""One spelling for a layer, whatever tool wrote it.

Trainers write the layer ``attn1.to_q`` of a UNet as ``lora_unet_..._attn1_to_q``, as
``unet....attn1.to_q``, without a prefix, or as ``attn1.processor.to_q_lora``. Two names that mean
one layer are a mistake within a file and a likeness between two.
"""

import re

__all__ = ["component_of", "dotted_layer_name", "plain_layer_name"]

_COMPONENTS: tuple[tuple[str, str], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder_3.", "text_encoder_3"),
    ("transformer.", "transformer"),
    ("base_model.model.", "unet"),
)
_OLD_DIFFUSERS = re.compile(r"[._]processor[._](to_(?:q|k|v|out))_lora\Z")


def component_of(layer: str) -> str:
    """Return the model part that a layer of this name is in; ``unet`` where the name says none."""
    return _split(layer)[0]


def dotted_layer_name(layer: str) -> str | None:
    """Return the layer without its component, as peft would name it; None where dots are lost."""
    if layer.startswith("lora_"):
        return None
    rest = _split(layer)[1]
    old = _OLD_DIFFUSERS.search(rest)
    if old is None:
        return rest
    return f"{rest[: old.start()]}.{'to_out.0' if old[1] == 'to_out' else old[1]}"


def plain_layer_name(layer: str) -> str:
    """Return ``component.layer`` with the layer's dots as underscores, the same for every tool."""
    component, rest = _split(layer)
    old = _OLD_DIFFUSERS.search(rest)
    if old is not None:
        target = "to_out_0" if old[1] == "to_out" else old[1]
        rest = f"{rest[: old.start()]}_{target}"
    flat = rest.replace(".", "_")
    if component.startswith("text_encoder"):
        # Trainers write this level; transformers has had and lost it.
        flat = flat.removeprefix("text_model_")
    return f"{component}.{flat}"


def _split(layer: str) -> tuple[str, str]:
    for prefix, component in _COMPONENTS:
        if layer.startswith(prefix):
            return component, layer.removeprefix(prefix)
    return "unet", layer
