"""How strong each layer of a LoRA is, read without the weights, and what of it is its identity.

What of the strength stands in settings alone, in the metadata or beside the file, is part of a
LoRA's identity, as the number that comes of it and not as the text. The rule is
``clora_core.recipe.lora.scales``.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.names import split_layer_name
from clora_core.recipe.lora.scales import PeftScales, layer_scale
from manifests.weights.header import Header

_KINDS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def lora_scales(
    path: Path, header: Header, layers: Sequence[LoraLayer], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the factor of each layer's update, by layer name; NaN where a pattern decides it.

    Args:
        path: The file.
        header: Of that file.
        layers: Of that file.
        settings: Of those layers, from ``described_lora``.

    Raises:
        LoraFileError: An alpha is not a finite number, or of a dtype that holds none.
        OSError: The file cannot be read.
    """
    scales = PeftScales(settings)
    alphas = _alpha_tensors(path, header, layers)
    return {
        layer.name: layer_scale(
            scales, layer, layer.component, layer.dotted_name, alphas.get(layer.name)
        )
        for layer in layers
    }


def strengths_beside_tensors(
    path: Path, header: Header, layers: Sequence[LoraLayer], settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return a text for each layer that its tensors alone would give another effect.

    Equal scales give equal texts, however the settings put them. Where only a model can say what
    a pattern matches, the patterns count as they are written. A layer that the settings put into
    another component than its name does has a text for that.

    Args:
        path: The file.
        header: Of that file.
        layers: Of that file.
        settings: Of those layers, from ``described_lora``.

    Raises:
        LoraFileError: As ``lora_scales``; only if the settings change what alphas mean.
        OSError: The file cannot be read.
    """
    scales = PeftScales(settings)
    if not scales.settings:
        return ()
    stabilised = [
        layer
        for layer in layers
        if layer.is_scaled and scales.divisor(layer.component, layer.rank) != layer.rank
    ]
    alphas = _alpha_tensors(path, header, stabilised)
    strengths = [
        f"{layer.name}\0of {layer.owner}"
        for layer in layers
        if layer.owner not in (None, split_layer_name(layer.name)[0])
    ]
    left_open: set[str] = set()
    for layer in layers:
        alpha = alphas.get(layer.name)
        if not layer.is_scaled or (alpha is None and layer.alpha is not None):
            continue
        scale = scales.scale(layer.component, layer.dotted_name, layer.rank, alpha)
        if math.isnan(scale):
            if layer.component not in left_open:
                strengths.append(scales.rules(layer.component))
            left_open.add(layer.component)
        elif scale != (1.0 if alpha is None else alpha / layer.rank):
            # Adding 0 makes -0.0 the 0.0 that it equals.
            strengths.append(f"{layer.name}\0{scale + 0.0!r}")
    return tuple(strengths)


def _alpha_tensors(path: Path, header: Header, layers: Sequence[LoraLayer]) -> dict[str, float]:
    """Return the alphas that stand as tensors, by layer name."""
    alphas: dict[str, float] = {}
    with path.open("rb") as file:
        for layer in layers:
            if layer.alpha is not None:
                entry = header.tensors[layer.alpha]
                file.seek(header.data_start + entry.start)
                content = file.read(entry.end - entry.start)
                alphas[layer.name] = _number(path, layer.name, entry.dtype, content)
    return alphas


def _number(path: Path, layer: str, dtype: str, content: bytes) -> float:
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        dtype, content = "F32", b"\0\0" + content
    if dtype not in _KINDS:
        raise LoraFileError(
            f"{path}, layer {layer[:200]!r} has an alpha of dtype {dtype}; save it as F32"
        )
    kind = np.dtype(_KINDS[dtype])
    if len(content) != kind.itemsize:
        raise LoraFileError(f"{path} became shorter while it was read; try again")
    alpha = float(np.frombuffer(content, dtype=kind)[0])
    if not math.isfinite(alpha):
        raise LoraFileError(
            f"{path}, layer {layer[:200]!r} has an alpha that is not finite: the training "
            "diverged; use an earlier checkpoint"
        )
    return alpha
