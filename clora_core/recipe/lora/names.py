"""Names of LoRA tensors: which part of which layer a name means, in every common convention.

    kohya            lora_unet_down_blocks_0_..._to_q.lora_down.weight  (+ .alpha)
    diffusers, peft  unet.down_blocks.0....to_q.lora_A.weight
    peft's own       base_model.model.down_blocks.0....to_q.lora_A.weight
    old diffusers    unet.down_blocks.0....attn1.processor.to_q_lora.down.weight
    kohya, SDXL      lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight

Whether a model has such a layer is asked of the model (``placement``).
"""

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["down", "up", "alpha"]
Writer = Literal["kohya", "diffusers", "peft"]

_TENSORS: tuple[tuple[re.Pattern[str], Writer | None], ...] = (
    (
        re.compile(
            r"(?P<layer>lora_(?:unet|te|te1|te2|te3|transformer|prior)_[\w\-]+)"
            r"\.(?:lora_(?P<part>down|up)\.weight|alpha)"
        ),
        "kohya",
    ),
    (re.compile(r"(?P<layer>.+?)\.lora_(?P<part>[AB])(?:\.default(?:_\d+)?)?\.weight"), "peft"),
    (
        re.compile(
            r"(?P<layer>.+?)(?:\.lora(?:_linear_layer)?|(?<=._lora))\.(?P<part>down|up)\.weight"
        ),
        "diffusers",
    ),
    (re.compile(r"(?P<layer>.+?)\.(?P<part>alpha)"), None),
)
_PARTS: dict[str | None, Part] = {"down": "down", "A": "down", "up": "up", "B": "up"}
_COMPONENTS = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "transformer.": "transformer",
}
PEFT_PREFIX = "base_model.model."
"""Of names that say no component, because peft has wrapped one model and knows no other."""

_TEXT_LAYER = re.compile(r"(?:text_model\.)?encoder\.layers\.\d+\.")
"""How a layer of a CLIP text encoder begins; no UNet has one that does."""

_OLD_DIFFUSERS = re.compile(r"[._]processor[._](to_(?:q|k|v|out))_lora\Z")


@dataclass(frozen=True, slots=True)
class TensorName:
    """What the name of one tensor means.

    Attributes:
        layer: As the file names it, without the part.
        part: Of that layer's update.
        writer: Kind of tool that writes such names; None for an alpha that several write so.
    """

    layer: str
    part: Part
    writer: Writer | None


def tensor_name(name: str) -> TensorName | None:
    """Return what a tensor's name means, None if it is no part of a LoRA."""
    for pattern, writer in _TENSORS:
        found = pattern.fullmatch(name)
        if found is not None:
            return TensorName(found["layer"], _PARTS.get(found["part"], "alpha"), writer)
    return None


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
