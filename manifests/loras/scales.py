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
from clora_core.recipe.lora.kinds import PLAIN_CAYLEY
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.names import PEFT_PREFIX, split_layer_name
from clora_core.recipe.lora.scales import PeftScales, layer_scale
from manifests.weights.header import Header

_KINDS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "F8_E4M3": "u1",
}  # fmt: skip
_UPPER_HALVES: Mapping[str, tuple[str, bytes]] = {
    "BF16": ("F32", b"\0\0"),
    "F8_E5M2": ("F16", b"\0"),
}
"""Numbers that are the upper half of others, and the lower half that they leave out."""


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
        LoraFileError: An alpha is not a finite number.
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
    another component than its name does has a text for that, and so has a rotation that they have
    made in another way than its names do.

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
    strengths += [
        f"{layer.name}\0turned by {layer.cayley.terms}, {layer.cayley.block_limit!r}"
        for layer in layers
        if layer.kind == "oft"
        and layer.owner is not None
        and (layer.cayley != PLAIN_CAYLEY or not layer.name.startswith(PEFT_PREFIX))
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
    if dtype in _UPPER_HALVES:
        dtype, below = _UPPER_HALVES[dtype]
        content = below + content
    kind = np.dtype(_KINDS[dtype])
    if len(content) != kind.itemsize:
        raise LoraFileError(f"{path} became shorter while it was read; try again")
    (number,) = np.frombuffer(content, dtype=kind)
    alpha = _e4m3(int(number)) if dtype == "F8_E4M3" else float(number)
    if not math.isfinite(alpha):
        raise LoraFileError(
            f"{path}, layer {layer[:200]!r} has an alpha that is not finite: the training "
            "diverged; use an earlier checkpoint"
        )
    return alpha


def _e4m3(bits: int) -> float:
    """Return a number of 8 bits: sign, four of exponent with a bias of 7, three of mantissa."""
    sign, exponent, mantissa = -1.0 if bits & 0x80 else 1.0, bits >> 3 & 0xF, bits & 7
    if bits & 0x7F == 0x7F:
        return math.nan
    return sign * math.ldexp(mantissa + (8 if exponent else 0), max(exponent, 1) - 10)
