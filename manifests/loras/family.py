"""Which family of base models a LoRA was made for, told by its shapes.

Metadata may say anything; the width of the text that cross-attention reads cannot lie, or the
LoRA would not load. Layer names settle what the width leaves open.
"""

import re
from collections.abc import Sequence

from clora_core.recipe.lora.layers import LoraLayer

UNKNOWN_FAMILY = "unknown"

_WIDTHS = {768: "SD1.x", 1024: "SD2.x", 2048: "SDXL"}
_TEXT_WIDTHS = {768: "SD1.x", 1024: "SD2.x"}
_ELSEWHERE = ("FLUX", "SD3", "other transformer")
"""Families whose models have no UNet; none of them runs here."""

_CROSS_ATTENTION = re.compile(r"attn2[._](?:processor[._])?to_[kv](?:_lora)?\Z")
_TEXT_ATTENTION = re.compile(r"self_attn[._](?:[qkv]_proj|to_[qkv]_lora)\Z")
_FLUX = re.compile(r"double_blocks|single_blocks|single_transformer_blocks")
_SD3 = re.compile(r"joint_blocks")
_ATTENTION_BLOCK = (
    r"(?:attentions[._]\d+|(?:input|output)_blocks[._]\d+[._]1|middle_block[._]1)[._]"
)
_SDXL = re.compile(rf"label_emb|add_embedding|{_ATTENTION_BLOCK}transformer_blocks[._][1-9]")
"""SDXL alone has size and crop beside the time, and several transformers in one attention block."""

_KOHYA_SGM = re.compile(r"^lora_unet_(?:input_blocks|middle_block|output_blocks)_")
"""Trainers that write kohya's names have Stability's spelling for SDXL, diffusers' for the rest."""

_FOUR_LEVELS = re.compile(
    r"^lora_te_|(?:input|output)_blocks[._](?:9|1\d)[._]"
    r"|input_blocks[._][12][._]1[._]|output_blocks[._][678][._]1[._]"
)
"""Blocks that SDXL's three levels don't have, and its text encoders' names."""

_TRANSFORMER = re.compile(
    r"^(?:lora_)?(?:transformer|prior)[._]|^lora_unet_(?:blocks|layers|transformer_blocks)_"
    r"|^(?:diffusion_model\.)?(?:blocks|layers|transformer_blocks|decoders)\."
)


def cross_attention_widths(layers: Sequence[LoraLayer]) -> tuple[int, ...]:
    """Return every width that cross-attention reads, in order; a whole LoRA has one at most."""
    return tuple(
        sorted(
            {
                layer.in_features
                for layer in layers
                if layer.in_features is not None
                and not layer.size.repeats
                and not layer.in_text_encoder
                and _CROSS_ATTENTION.search(layer.name)
            }
        )
    )


def model_family(layers: Sequence[LoraLayer]) -> str:
    """Return the family of base models, ``unknown`` where names and shapes leave it open.

    Returns:
        ``SD1.x``, ``SD2.x``, ``SDXL``, ``FLUX``, ``SD3``, ``other transformer`` or ``unknown``.
    """
    names = [layer.name for layer in layers]
    for family, pattern in (("FLUX", _FLUX), ("SD3", _SD3)):
        if any(pattern.search(name) for name in names):
            return family
    widths = cross_attention_widths(layers)
    if widths:
        return _WIDTHS.get(widths[0], UNKNOWN_FAMILY)
    if _is_sdxl(layers):
        return "SDXL"
    if any(map(_TRANSFORMER.search, names)):
        return "other transformer"
    return _family_of_text(layers)


def _is_sdxl(layers: Sequence[LoraLayer]) -> bool:
    if any(layer.component == "text_encoder_2" or _SDXL.search(layer.name) for layer in layers):
        return True
    names = [layer.name for layer in layers]
    return any(map(_KOHYA_SGM.match, names)) and not any(map(_FOUR_LEVELS.search, names))


def _family_of_text(layers: Sequence[LoraLayer]) -> str:
    """Tell by the text encoder alone, where its name stands for one family."""
    widths = {
        layer.in_features
        for layer in layers
        if layer.component == "text_encoder" and _TEXT_ATTENTION.search(layer.name)
    }
    if len(widths) != 1:
        return UNKNOWN_FAMILY
    (width,) = widths
    if width is None:
        return UNKNOWN_FAMILY
    # SDXL and FLUX have SD1's text encoder, too, and diffusers names it alike.
    if width == 768 and not all(layer.name.startswith("lora_te_") for layer in layers):
        return UNKNOWN_FAMILY
    return _TEXT_WIDTHS.get(width, UNKNOWN_FAMILY)


def misfit(*, family: str, lora_width: int | None, model_width: int | None) -> str | None:
    """Return why a LoRA cannot go on a base model, as the end of a sentence; None if it may fit.

    Args:
        family: The LoRA's, from ``model_family``.
        lora_width: The LoRA's cross-attention width; None if it has none.
        model_width: The base model's; None if it isn't known.
    """
    if model_width is None:
        return None
    known = _WIDTHS.get(model_width)
    if lora_width is not None:
        made_for, fits = _named(family, lora_width), lora_width == model_width
    else:
        is_elsewhere = family in _ELSEWHERE or (family == "SDXL" and known is None)
        made_for = family
        fits = not is_elsewhere and (known is None or family in (known, UNKNOWN_FAMILY))
    if fits:
        return None
    return (
        f"is made for {made_for} and its row's base model is "
        f"{_named(known or UNKNOWN_FAMILY, model_width)}; "
        "use a LoRA or a base model of the same family"
    )


def _named(family: str, width: int) -> str:
    name = "another family" if family == UNKNOWN_FAMILY else family
    return f"{name} (cross-attention width {width})"
