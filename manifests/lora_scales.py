"""How strong each layer of a LoRA is, read without the weights: alpha over rank.

An alpha stands as a tensor of one number beside its layer, or in the settings that diffusers
writes as JSON under ``lora_adapter_metadata``; without either the scale is 1. The settings may
also ask for the root of the rank. What of this stands in the metadata alone is part of a LoRA's
identity, as the number that comes of it and not as the text.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from manifests.alpha_patterns import AlphaPatterns, as_alpha
from manifests.lora_layers import LoraLayer
from manifests.lora_names import component_of, dotted_layer_name
from manifests.safetensors_header import Header, LoraFileProblem, TensorEntry

__all__ = ["lora_scales", "metadata_strengths"]

_KINDS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


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
    settings = _Settings(header.metadata)
    alphas = _alpha_tensors(path, header, layers)
    return {
        layer.name: settings.metadata_scale(layer)
        if layer.name not in alphas
        else alphas[layer.name] / settings.divisor(layer)
        for layer in layers
    }


def metadata_strengths(path: Path, header: Header, layers: Sequence[LoraLayer]) -> tuple[str, ...]:
    """Return a text for each layer whose scale is another one than its tensors alone say.

    Equal scales give equal texts, however the metadata put them. Where only a model can say what
    a pattern matches, the patterns count as they are written.

    Args:
        path: The file.
        header: Of that file.
        layers: Of that file, from ``lora_layers``.

    Raises:
        LoraFileProblem: As ``lora_scales``; only if the metadata change what alphas mean.
        OSError: The file cannot be read.
    """
    settings = _Settings(header.metadata)
    if settings.say_nothing:
        return ()
    stabilised = [layer for layer in layers if settings.divisor(layer) != layer.rank]
    alphas = _alpha_tensors(path, header, stabilised)
    strengths: dict[str, None] = {}
    for layer in layers:
        scale = plain = 1.0
        if layer.name in alphas:
            scale = alphas[layer.name] / settings.divisor(layer)
            plain = alphas[layer.name] / layer.rank
        elif _alpha_entry(header, layer) is None:
            scale = settings.metadata_scale(layer)
        if math.isnan(scale):
            strengths[settings.rules(component_of(layer.name))] = None
        elif scale != plain:
            # Adding 0 makes -0.0 the 0.0 that it equals.
            strengths[f"{layer.name}\0{scale + 0.0!r}"] = None
    return tuple(strengths)


class _Settings:
    """What peft's settings in the metadata say; nothing, where they cannot be read.

    Read as they are when the weights are loaded: of a key given twice the last counts.
    """

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            values: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        except (ValueError, RecursionError):
            values = {}
        self._values = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
        self._patterns: dict[str, AlphaPatterns] = {}

    @property
    def say_nothing(self) -> bool:
        return not self._values

    def divisor(self, layer: LoraLayer) -> float:
        """Return what an alpha is divided by: rank-stabilised LoRAs take the root of the rank."""
        stabilised = self._values.get(f"{component_of(layer.name)}.use_rslora") is True
        return layer.rank**0.5 if stabilised else layer.rank

    def metadata_scale(self, layer: LoraLayer) -> float:
        """Return the scale of a layer without an alpha tensor; NaN where a pattern decides it."""
        component = component_of(layer.name)
        default = as_alpha(self._values.get(f"{component}.lora_alpha"))
        patterns = self._of(component)
        name = dotted_layer_name(layer.name)
        if name is None:
            alphas, is_sure = tuple(alpha for _, alpha in patterns.rules), False
        else:
            alphas, is_sure = patterns.possible(name)
        scales = {alpha / self.divisor(layer) for alpha in alphas}
        if not is_sure:
            scales.add(1.0 if default is None else default / self.divisor(layer))
        return scales.pop() if len(scales) == 1 else math.nan

    def rules(self, component: str) -> str:
        """Return all that decides the scales of a component's layers beside their ranks."""
        rules = (
            self._of(component).rules,
            as_alpha(self._values.get(f"{component}.lora_alpha")),
            self._values.get(f"{component}.use_rslora") is True,
        )
        return f"{component}\0{json.dumps(rules)}"

    def _of(self, component: str) -> AlphaPatterns:
        if component not in self._patterns:
            patterns = AlphaPatterns(self._values.get(f"{component}.alpha_pattern"))
            self._patterns[component] = patterns
        return self._patterns[component]


def _alpha_entry(header: Header, layer: LoraLayer) -> TensorEntry | None:
    return header.tensors.get(f"{layer.name}.alpha")


def _alpha_tensors(path: Path, header: Header, layers: Sequence[LoraLayer]) -> dict[str, float]:
    """Return the alphas that stand as tensors, by layer name."""
    alphas: dict[str, float] = {}
    with path.open("rb") as file:
        for layer in layers:
            entry = _alpha_entry(header, layer)
            if entry is not None:
                file.seek(header.data_start + entry.start)
                content = file.read(entry.end - entry.start)
                alphas[layer.name] = _number(path, layer.name, entry, content)
    return alphas


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
