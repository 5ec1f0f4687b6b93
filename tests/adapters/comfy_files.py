"""ComfyUI: differences that it extracts (LoraSave) and adapters that it trains (TrainLora).

Written from comfy_extras/nodes_lora_extract.py, nodes_train.py and comfy/weight_adapter/{base,
lora,loha,lokr,oft}.py (create_train, __call__ of the ...Diff classes). Layers have the names of
ComfyUI's own models. A trained adapter is two-dimensional for convolutions, too: their kernel is
part of the input. Norms and biases are differences beside it.
"""

import sys
from pathlib import Path

import torch
from lycoris.functional.general import factorization

from adapters.ai_toolkit_files import full_parts
from adapters.case import (
    AdapterCase,
    Components,
    Effect,
    Expected,
    Layer,
    Parts,
    Trainer,
    always,
    write_by_layer,
)
from adapters.factors import Source, rotation_spread, to_share
from adapters.kohya_files import low_rank_effect, low_rank_parts
from adapters.layers import (
    AROUND,
    IN_RESIDUAL,
    IN_TEXT,
    IN_TRANSFORMER,
    NORMS,
    TEXT_NORMS,
    chosen,
    layers_named,
)
from adapters.loops import hadamard, kronecker, rotated_outputs
from adapters.spellings import comfy

_ALPHA = 1.0
"""That its training sets."""


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    names = (*IN_TRANSFORMER, *IN_RESIDUAL, *AROUND, *NORMS)
    text = (*IN_TEXT, *TEXT_NORMS) if case.kind.startswith("extracted") else ()
    found = chosen(case, components, layers_named(components, names, text=text))
    if case.kind == "trained oft":
        return [layer for layer in found if layer.is_norm or layer.weight.shape[0] >= 16]
    return found


def name(case: AdapterCase, layer: Layer) -> str:  # noqa: ARG001
    return comfy(layer)


def parts(case: AdapterCase, layer: Layer) -> Parts:
    source = Source(case, layer)
    whole = full_parts(source, layer)
    if layer.is_norm or case.kind == "extracted full":
        return whole
    bias = {part: tensor for part, tensor in whole.items() if part == "diff_b"}
    out, *rest = layer.weight.shape
    flat = (out, torch.Size(rest).numel())
    if case.kind == "extracted lora":
        return low_rank_parts(source, layer, (out, *rest), case.rank, alpha=None) | bias
    if case.kind == "trained lora":
        return low_rank_parts(source, layer, flat, case.rank, alpha=_ALPHA) | bias
    alpha: Parts = {"alpha": torch.tensor(_ALPHA)}
    if case.kind == "trained oft":
        side, number = factorization(out, case.rank)
        blocks = source.normal("oft_blocks", (number, side, side)) * rotation_spread(side)
        return {"oft_blocks": blocks, **alpha, **bias}
    if case.kind == "trained loha":
        written: Parts = {
            "hada_w1_a": source.normal("w1_a", (out, case.rank)),
            "hada_w1_b": source.normal("w1_b", (case.rank, flat[1])),
            "hada_w2_a": source.normal("w2_a", (out, case.rank)),
            "hada_w2_b": source.normal("w2_b", (case.rank, flat[1])),
        }
        last = "hada_w2_b"
    else:
        (a, b), (c, d) = factorization(out, case.rank), factorization(flat[1], case.rank)
        written = {"lokr_w1": source.normal("w1", (a, c)), "lokr_w2": source.normal("w2", (b, d))}
        last = "lokr_w1"
    sized = to_share({**written, **alpha}, [last], lambda p: effect(case, layer, p), layer)
    return sized | bias


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:  # noqa: ARG001
    given = {part: tensor.double() for part, tensor in written.items()}
    bias, shape = given.pop("diff_b", None), layer.weight.shape
    if "diff" in given:
        return Effect(given["diff"], bias)
    if "lora_up.weight" in given:
        return Effect(low_rank_effect(layer, given).weight, bias)
    if "hada_w1_a" in given:
        return Effect(
            hadamard(given, float(given["alpha"]) / given["hada_w1_b"].shape[0], shape), bias
        )
    if "lokr_w1" in given:
        return Effect(kronecker(given["lokr_w1"], given["lokr_w2"], 1.0, shape), bias)
    limit = float(given["alpha"])  # not times the outputs, as elsewhere
    turned = rotated_outputs(layer.weight, given["oft_blocks"], limit, eps_as_kohya=False)
    return Effect(turned - layer.weight, bias)


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(sys.modules[__name__], folder, case, components)


COMFYUI = Trainer(
    name="ComfyUI",
    kinds=(
        "extracted lora",
        "extracted full",
        "trained lora",
        "trained loha",
        "trained lokr",
        "trained oft",
    ),
    spellings=("ComfyUI",),
    layers=layers,
    write=write,
    why_not=always,
)
