"""Which family of base models a LoRA was made for, told by its shapes.

Metadata may say anything; the width of the text that cross-attention reads cannot lie, or the
LoRA would not load. Layer names settle what the width leaves open.
"""

import re
from collections.abc import Sequence

from manifests.lora_layers import LoraLayer

__all__ = ["UNKNOWN_FAMILY", "cross_attention_width", "misfit", "model_family"]

UNKNOWN_FAMILY = "unknown"

_WIDTHS = {768: "SD1.x", 1024: "SD2.x", 2048: "SDXL"}
_CROSS_ATTENTION = re.compile(r"attn2[._](?:processor[._])?to_[kv](?:_lora)?$")
_FLUX = re.compile(r"double_blocks|single_blocks|single_transformer_blocks")
_SDXL = re.compile(r"^lora_te2_|^text_encoder_2\.|label_emb")
_TRANSFORMER = re.compile(r"^(lora_)?transformer[._]|joint_blocks|^lora_unet_blocks_")


def cross_attention_width(layers: Sequence[LoraLayer]) -> int | None:
    """Return the width of the text embedding that cross-attention reads, or None."""
    for layer in layers:
        if not layer.in_text_encoder and _CROSS_ATTENTION.search(layer.name):
            return layer.in_features
    return None


def model_family(layers: Sequence[LoraLayer]) -> str:
    """Return ``SD1.x``, ``SD2.x``, ``SDXL``, ``FLUX``, ``other transformer`` or ``unknown``."""
    names = [layer.name for layer in layers]
    if any(_FLUX.search(name) for name in names):
        return "FLUX"
    width = cross_attention_width(layers)
    if width is not None:
        return _WIDTHS.get(width, UNKNOWN_FAMILY)
    if any(_SDXL.search(name) for name in names):
        return "SDXL"
    if any(_TRANSFORMER.search(name) for name in names):
        return "other transformer"
    return UNKNOWN_FAMILY


def misfit(*, family: str, lora_width: int | None, model_width: int | None) -> str | None:
    """Return why a LoRA cannot go on a base model, as the end of a sentence; None if it may fit.

    Args:
        family: The LoRA's, from ``model_family``.
        lora_width: The LoRA's cross-attention width; None if it has none.
        model_width: The base model's; None if it isn't known.
    """
    if model_width is None:
        return None
    model = _named(_WIDTHS.get(model_width, UNKNOWN_FAMILY), model_width)
    if lora_width is not None and lora_width != model_width:
        return (
            f"is made for {_named(family, lora_width)} and this job's base model is {model}; "
            "use a LoRA or a base model of the same family"
        )
    if lora_width is None and family in ("FLUX", "SDXL", "other transformer"):
        if family == _WIDTHS.get(model_width):
            return None
        return (
            f"is made for {family} and this job's base model is {model}; "
            "use a LoRA or a base model of the same family"
        )
    return None


def _named(family: str, width: int) -> str:
    name = "another family" if family == UNKNOWN_FAMILY else family
    return f"{name} (cross-attention width {width})"
