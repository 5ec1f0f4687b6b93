"""Names of LoRA tensors: which layer of which component a key means, in every common convention.

The model itself is the dictionary: a key is resolved by looking up the names of the layers that the
model really has, so an unknown or misspelt layer is noticed, never skipped.

    kohya            lora_unet_down_blocks_0_..._to_q.lora_down.weight  (+ .alpha)
    diffusers, peft  unet.down_blocks.0....to_q.lora_A.weight
    peft, bare       base_model.model.down_blocks.0....to_q.lora_A.weight
    old diffusers    unet.down_blocks.0....attn1.processor.to_q_lora.down.weight
    kohya, SDXL      lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from clora_core.lora.sgm_names import diffusers_spelling

Part = Literal["down", "up", "alpha"]

_PARTS: tuple[tuple[str, Part], ...] = (
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".alpha", "alpha"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
)
_OLD_DIFFUSERS = re.compile(r"\.processor\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight\Z")
_ADAPTER_NAME = re.compile(r"(\.lora_[AB])\.default(?:_\d+)?\.weight\Z")
_PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "base_model.model.": "unet",
}


@dataclass(frozen=True)
class TensorName:
    """What one key of a file means."""

    component: str
    layer: str
    part: Part


class LayerNames:
    """The layers a LoRA may change, of every component of one base model.

    Args:
        components: Component name to the dotted names of its linear and convolution layers.
    """

    def __init__(self, components: Mapping[str, Iterable[str]]) -> None:
        self._by_spelling = {
            component: _spellings(layers) for component, layers in components.items()
        }

    def parse(self, key: str) -> TensorName | None:
        """Return what ``key`` means for this model, or None if it fits no layer."""
        stem, part = split_key(key)
        if part is None:
            return None
        component, rest = _owner(stem)
        known = self._by_spelling.get(component, {})
        flat = rest.replace(".", "_")
        layer = known.get(flat) or known.get(diffusers_spelling(flat))
        return TensorName(component, layer, part) if layer else None


def written_layer(key: str) -> str | None:
    """Return the dotted name that ``key`` gives its layer; None for kohya's, which has no dots."""
    stem, _ = split_key(key)
    return None if stem.startswith("lora_") else _owner(stem)[1]


def split_key(key: str) -> tuple[str, Part | None]:
    """Return the layer as ``key`` writes it, and which part of it; None if it says no part."""
    old = _OLD_DIFFUSERS.search(key)
    if old:
        target = "to_out.0" if old[1] == "to_out" else old[1]
        return f"{key[: old.start()]}.{target}", "down" if old[2] == "down" else "up"
    key = _ADAPTER_NAME.sub(r"\1.weight", key)
    for suffix, part in _PARTS:
        if key.endswith(suffix):
            return key.removesuffix(suffix), part
    return key, None


def _owner(stem: str) -> tuple[str, str]:
    """Return the component that a layer as written is in, and the rest of its name."""
    for prefix, owner in _PREFIXES.items():
        if stem.startswith(prefix):
            return owner, stem.removeprefix(prefix)
    return "unet", stem


def _spellings(layers: Iterable[str]) -> dict[str, str]:
    """Map a layer's name with underscores, with and without ``text_model``, to its own name.

    Text encoders are written with the ``text_model`` level by trainers and have lost or kept it in
    the model from one version of transformers to the next.
    """
    found: dict[str, str] = {}
    for layer in layers:
        flat = layer.replace(".", "_")
        bare = flat.removeprefix("text_model_")
        for spelling in (flat, bare, f"text_model_{bare}"):
            found.setdefault(spelling, layer)
    return found
