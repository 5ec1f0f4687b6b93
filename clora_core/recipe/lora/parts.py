"""Names of adapter tensors: which part of which layer's update a name means, for every tool.

    kohya            lora_unet_down_blocks_0_..._to_q.lora_down.weight  (+ .alpha)
    diffusers, peft  unet.down_blocks.0....to_q.lora_A.weight
    peft's own       base_model.model.down_blocks.0....to_q.lora_A.weight
    old diffusers    unet.down_blocks.0....attn1.processor.to_q_lora.down.weight
    LyCORIS          lora_unet_down_blocks_0_..._to_q.hada_w1_a  (lokr_w1, dora_scale, diff ...)

A part is called as LyCORIS calls it, whatever the tool; a LoRA's factors are ``down`` and ``up``.
What stands before it is the layer's name (``names``).
"""

import re
from dataclasses import dataclass
from typing import Literal

from clora_core.recipe.lora.names import FLAT_PREFIXES

Part = Literal[
    "down", "up", "mid", "bias", "alpha", "dora_scale", "magnitude",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    "a1", "a2", "b1", "b2", "diff", "diff_b",
    "oft_blocks", "oft_R", "scaled_oft", "boft_R", "boft_s", "rescale",
]  # fmt: skip
"""``dora_scale`` says its axis by its shape; ``magnitude``, peft's, is always of the outputs."""

Writer = Literal["kohya", "diffusers", "peft", "comfyui"]

_SAME: tuple[Part, ...] = (
    "alpha", "dora_scale", "magnitude", "rescale", "oft_blocks", "boft_R", "boft_s",
    "diff", "diff_b",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
)  # fmt: skip
_PARTS: dict[str, Part] = {
    "A": "down", "B": "up", "w_norm": "diff", "b_norm": "diff_b",
    "down": "down", "up": "up", "mid": "mid", "a1": "a1", "a2": "a2", "b1": "b1", "b2": "b2",
    **{name: name for name in _SAME},
}  # fmt: skip

_DEFAULT = r"(?:\.default(?:_\d+)?)?"
_ADAPTER = r"(?:\.[^.]+)?"
"""peft's name of the adapter, which its own files leave out."""

_SUFFIXES: tuple[tuple[str, Writer | None, Part | None], ...] = (
    (r"\.lora_(?P<part>down|up|mid)\.weight", "kohya", None),
    (rf"\.lora_(?P<part>[AB]){_ADAPTER}\.weight", "peft", None),
    (rf"\.lora_B{_ADAPTER}\.bias", "peft", "bias"),
    (rf"\.lora_magnitude_vector(?:{_ADAPTER}\.weight|{_DEFAULT})", "peft", "magnitude"),
    (
        r"(?:\.lora(?:_linear_layer)?|(?<=._lora))\.(?P<part>down|up)\.weight",
        "diffusers",
        None,
    ),
    (r"\.lora(?:_linear_layer)?\.up\.bias", "diffusers", "bias"),
    (r"\.(?P<part>[ab][12])\.weight", None, None),
    (rf"\.oft_R{_ADAPTER}\.weight", None, "oft_R"),
    (r"\.oft_R\.scaled_oft", None, "scaled_oft"),
    (rf"\.(?P<part>w_norm|b_norm|{'|'.join(_SAME)}){_DEFAULT}", None, None),
)
_TENSORS: tuple[tuple[re.Pattern[str], Writer | None, Part | None], ...] = tuple(
    (re.compile(rf"(?P<layer>.+?){suffix}", re.ASCII), writer, part)
    for suffix, writer, part in _SUFFIXES
)

_OF_KOHYA = re.compile(
    r"lora_(?:unet|te[123]?|transformer|prior)_[\w\-]+|lora_te[123]?\..+", re.ASCII
)
_NAMED = re.compile(r"\.lora_(?:[AB]|magnitude_vector)\.([^.]+)\.(?:weight|bias)\Z")


@dataclass(frozen=True, slots=True)
class TensorName:
    """What the name of one tensor means.

    Attributes:
        layer: As the file names it, without the part.
        part: Of that layer's update.
        writer: Kind of tool that writes such names; None where several write the part so.
    """

    layer: str
    part: Part
    writer: Writer | None


def tensor_name(name: str) -> TensorName | None:
    """Return what a tensor's name means, None if it is no part of an adapter."""
    for pattern, writer, part in _TENSORS:
        found = pattern.fullmatch(name)
        if found is not None:
            layer = found["layer"]
            if layer.startswith("lora_") and not _OF_KOHYA.fullmatch(layer):
                return None
            is_flat = "." not in layer and layer.startswith(FLAT_PREFIXES)
            if writer in (None, "kohya"):
                writer = "kohya" if is_flat else "comfyui" if writer else None
            return TensorName(layer, part or _PARTS[found["part"]], writer)
    return None


def adapter_name(name: str) -> str | None:
    """Return what peft calls the adapter that a tensor is of; None where its name doesn't say."""
    found = _NAMED.search(name)
    return found[1] if found else None
