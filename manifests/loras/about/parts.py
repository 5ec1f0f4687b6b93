"""Which parts of a model a LoRA changes, in the words that people use for them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from clora_core.recipe.lora.layers import LoraLayer

_UNET_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "UNet outer layers",
        re.compile(r"\.(?:conv_in|conv_out|(?:time|add|class)_embedding[._]\w+)\Z"),
    ),
    ("UNet norms", re.compile(r"norm(?:\d|_out)?\Z")),
    ("UNet cross-attention", re.compile(r"attn2[._]")),
    ("UNet self-attention", re.compile(r"attn1[._]")),
    ("UNet feed-forward", re.compile(r"[._]ff[._]")),
    ("UNet projections", re.compile(r"proj_(?:in|out)\Z")),
    (
        "UNet convolutions and time",
        re.compile(
            r"conv|resnets|samplers|time_emb|add_emb|in_layers|out_layers|emb_layers|skip_conn|_op\Z"
        ),
    ),
)

_TEXT_NORM = re.compile(r"layer_norm\d?\Z")


def changed_parts(layers: Sequence[LoraLayer]) -> Mapping[str, int]:
    """Return how many layers of each part a LoRA changes, by part, most layers first."""
    counts = Counter(map(_part, layers))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _part(layer: LoraLayer) -> str:
    component = layer.component
    if layer.in_text_encoder:
        number = component.removeprefix("text_encoder").removeprefix("_")
        encoder = f"text encoder {number}" if number.isdigit() else "text encoder"
        return f"{encoder} norms" if _TEXT_NORM.search(layer.flat_name) else encoder
    if component != "unet":
        return component
    for part, pattern in _UNET_PARTS:
        if pattern.search(layer.flat_name):
            return part
    return "other layers"
