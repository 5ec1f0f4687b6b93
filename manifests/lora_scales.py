"""How strong each layer of a LoRA is, read without the weights: alpha over rank.

An alpha stands as a tensor of one number beside its layer, or in the settings that diffusers
writes as JSON under ``lora_adapter_metadata``; without either the scale is 1.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from manifests.json_text import load_json
from manifests.lora_layers import LoraLayer
from manifests.lora_names import component_of, plain_layer_name
from manifests.safetensors_header import Header, LoraFileProblem, TensorEntry

__all__ = ["lora_scales"]

_PLAIN = re.compile(r"\^?[\w.\-]+\$?")
_KINDS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


_AlphaPatterns = tuple[Mapping[str, tuple[int, Any]], bool]
"""Place and alpha by layer name (dots as underscores), and whether there are patterns, too."""


def lora_scales(path: Path, header: Header, layers: Sequence[LoraLayer]) -> dict[str, float]:
    """Return the factor of each layer's update, by layer name; NaN where a pattern decides it.

    Args:
        path: The file.
        header: Of that file.
        layers: Of that file, from ``lora_layers``.

    Raises:
        LoraFileProblem: An alpha is not a finite number, or of a dtype that holds none.
        OSError: The file cannot be read.
    """
    settings = _peft_settings(header.metadata)
    scales: dict[str, float] = {}
    told: dict[str, _AlphaPatterns] = {}
    with path.open("rb") as file:
        for layer in layers:
            entry = header.tensors.get(f"{layer.name}.alpha")
            if entry is None:
                component = component_of(layer.name)
                if component not in told:
                    told[component] = _alpha_patterns(settings.get(f"{component}.alpha_pattern"))
                scales[layer.name] = _told_scale(layer, settings, told[component])
                continue
            file.seek(header.data_start + entry.start)
            content = file.read(entry.end - entry.start)
            alpha = _number(path, layer.name, entry, content)
            scales[layer.name] = alpha / _divisor(layer, settings)
    return scales


def _number(path: Path, layer: str, entry: TensorEntry, content: bytes) -> float:
    if len(content) != entry.end - entry.start:
        raise LoraFileProblem(f"{path} became shorter while it was read; try again")
    if entry.dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        alpha = float(np.frombuffer(b"\0\0" + content, dtype="<f4")[0])
    elif entry.dtype in _KINDS:
        alpha = float(np.frombuffer(content, dtype=_KINDS[entry.dtype])[0])
    else:
        raise LoraFileProblem(
            f"{path}, layer {layer[:200]!r} has an alpha of dtype {entry.dtype}; save it as F32"
        )
    if not math.isfinite(alpha):
        raise LoraFileProblem(
            f"{path}, layer {layer[:200]!r} has an alpha that is not finite: the training "
            "diverged; use an earlier checkpoint"
        )
    return alpha


def _peft_settings(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        settings = load_json(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", settings) if isinstance(settings, dict) else {}


def _alpha_patterns(patterns: object) -> _AlphaPatterns:
    """Return the layer names that settings set alphas by, up to the first that is a pattern."""
    named: dict[str, tuple[int, Any]] = {}
    if isinstance(patterns, dict):
        for name, value in cast("dict[str, Any]", patterns).items():
            if not _PLAIN.fullmatch(name):
                return named, True
            named.setdefault(name.strip("^$").replace(".", "_"), (len(named), value))
    return named, False


def _told_scale(layer: LoraLayer, settings: Mapping[str, Any], patterns: _AlphaPatterns) -> float:
    named, has_pattern = patterns
    own = plain_layer_name(layer.name).partition(".")[2]
    parts = own.split("_")
    endings = ["_".join(parts[start:]) for start in range(len(parts))]
    found = [ending for ending in endings if ending in named]
    if not found and has_pattern:
        return math.nan  # a regular expression; whoever loads the weights tries it
    alpha: Any = settings.get(f"{component_of(layer.name)}.lora_alpha")
    if found:
        # The first in the settings' order, as whoever loads the weights takes it.
        alpha = min((named[ending] for ending in found), key=lambda item: item[0])[1]
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        return 1.0
    try:
        return float(alpha) / _divisor(layer, settings)
    except OverflowError:  # JSON's integers have no end
        return math.inf


def _divisor(layer: LoraLayer, settings: Mapping[str, Any]) -> float:
    # Rank-stabilised LoRAs divide by the root of the rank.
    stabilised = settings.get(f"{component_of(layer.name)}.use_rslora") is True
    return layer.rank**0.5 if stabilised else layer.rank
