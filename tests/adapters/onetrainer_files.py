"""OneTrainer: LoRA, DoRA, LoHa, LoKr and OFT v2, in each of its output formats.

Written from modules/module/LoRAModule.py and oft_utils.py (tensors and formulas) and
modules/util/convert_lora_util.py with modules/modelSaver/mixin/LoRASaverMixin.py (formats). Without
a filter it trains every linear layer and convolution, those outside the blocks and SDXL's text
projection too. ``legacy`` is what it wrote until July 2026 and still does by default.
"""

import sys
from pathlib import Path

import torch
from lycoris.functional.general import factorization
from torch import Tensor

from adapters.case import (
    AdapterCase,
    Components,
    Effect,
    Expected,
    Family,
    Layer,
    Parts,
    Trainer,
    write_by_layer,
)
from adapters.factors import Source, magnitudes, norms_along, rotation_spread, to_share
from adapters.kohya_files import low_rank_effect, low_rank_parts
from adapters.layers import (
    AROUND,
    IN_RESIDUAL,
    IN_TEXT,
    IN_TRANSFORMER,
    TEXT_PROJECTION,
    chosen,
    layers_named,
)
from adapters.loops import FLOAT32_EPS, decomposed, hadamard, kronecker, rotated_inputs, tucker
from adapters.spellings import comfy, dotted, kohya_flat, sgm_name

_RENAMED = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
_OFT_SIDE = 4


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    names = (*IN_TRANSFORMER, *IN_RESIDUAL, *AROUND)
    text = () if case.spelling == "original" else (*IN_TEXT, *TEXT_PROJECTION)
    return chosen(case, components, layers_named(components, names, text=text))


def name(case: AdapterCase, layer: Layer) -> str:
    if case.spelling == "diffusers":
        return dotted(layer)
    if case.spelling == "original":
        return sgm_name(layer)
    if case.spelling == "comfy":
        return comfy(layer)
    sgm = case.spelling == "kohya" and case.family == "sdxl"
    return kohya_flat(layer, case.family, sgm=sgm)


def parts(case: AdapterCase, layer: Layer) -> Parts:
    return _in_format(case, _trained(case, layer, Source(case, layer)))


def _trained(case: AdapterCase, layer: Layer, source: Source) -> Parts:
    kind, _, axis = case.kind.partition(" dora ")
    if kind.startswith("dora"):
        kind, axis = "lora", kind.removeprefix("dora ")
    if kind.startswith("oft"):
        return _rotation(case, layer, source)
    if kind == "loha":
        written = _hadamard_parts(case, layer, source)
    elif kind.startswith("lokr"):
        written = _kronecker_parts(case, layer, source, kind)
    else:
        shape = tuple(layer.weight.shape)
        written = low_rank_parts(source, layer, shape, case.rank, alpha=case.rank / 2)
    if not axis:
        return written
    norms = norms_along(layer.weight, 0 if axis == "output" else 1)
    return {**written, "dora_scale": magnitudes(norms, source.normal("m", norms.shape))}


def _hadamard_parts(case: AdapterCase, layer: Layer, source: Source) -> Parts:
    """Return LoHa factors; those of a convolution have its kernel, unlike LyCORIS's."""
    out, *rest = layer.weight.shape
    written: Parts = {"alpha": torch.tensor(case.rank / 2)}
    for half in ("w1", "w2"):
        up = (out, case.rank, *(1 for _ in rest[1:]))
        written[f"hada_{half}_a"] = source.normal(f"{half}_a", up)
        written[f"hada_{half}_b"] = source.normal(f"{half}_b", (case.rank, *rest))
    return to_share(written, ["hada_w2_a"], lambda p: _delta(layer, p), layer)


def _kronecker_parts(case: AdapterCase, layer: Layer, source: Source, kind: str) -> Parts:
    out, inner, *kernel = layer.weight.shape
    factor = -1 if kind in ("lokr both", "lokr whole") else 4
    (a, b), (c, d), rank = factorization(out, factor), factorization(inner, factor), case.rank
    written: Parts = {"alpha": torch.tensor(rank / 2)}
    if kind == "lokr both" and rank < max(a, c) / 2:
        written["lokr_w1_a"] = source.normal("w1_a", (a, rank))
        written["lokr_w1_b"] = source.normal("w1_b", (rank, c))
    else:
        written["lokr_w1"] = source.normal("w1", (a, c))
    wide = torch.Size(kernel).numel()
    if kind == "lokr whole" or rank >= max(b, d) / 2:
        written["lokr_w2"] = source.normal("w2", (b, d, *kernel))
    elif kind == "lokr tucker" and wide > 1:
        written["lokr_t2"] = source.normal("t2", (rank, rank, *kernel))
        written["lokr_w2_a"] = source.normal("w2_a", (rank, b))
        written["lokr_w2_b"] = source.normal("w2_b", (rank, d))
    else:
        written["lokr_w2_a"] = source.normal("w2_a", (b, rank))
        written["lokr_w2_b"] = source.normal("w2_b", (rank, d * wide))
    if {"lokr_w1", "lokr_w2"} <= written.keys():
        written["alpha"] = torch.tensor(float(rank))
    first = "lokr_w1" if "lokr_w1" in written else "lokr_w1_a"
    return to_share(written, [first], lambda p: _delta(layer, p), layer)


def _rotation(case: AdapterCase, layer: Layer, source: Source) -> Parts:
    inputs = layer.weight[0].numel()
    side = next(size for size in (_OFT_SIDE, 3, 5, inputs) if inputs % size == 0)
    number = 1 if case.kind == "oft shared" else inputs // side
    vectors = source.normal("oft", (number, side * (side - 1) // 2)) * rotation_spread(side) * 2
    if case.kind != "oft scaled":
        return {"oft_R.weight": vectors}
    scaled = vectors * (2 * (side - 1) ** 0.5)
    return {"oft_R.weight": scaled, "oft_R.scaled_oft": torch.tensor(True)}


def _in_format(case: AdapterCase, trained: Parts) -> Parts:
    """Return the tensors of one layer as the output format has them."""
    if case.spelling in ("legacy", "kohya"):
        return trained
    written = {_RENAMED.get(part, part): tensor for part, tensor in trained.items()}
    if case.spelling != "diffusers" or "lora_B.weight" not in written:
        return written
    up = written["lora_B.weight"]
    written["lora_B.weight"] = up * (written.pop("alpha") / up.shape[1])
    scale = written.get("dora_scale")
    if scale is not None and scale.shape[0] > 1:  # peft has magnitudes of outputs alone
        del written["dora_scale"]
        flat = (-1,) if scale.ndim == 2 else (1, -1, 1, 1)
        written["lora_magnitude_vector.weight"] = scale.reshape(flat)
    return written


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:  # noqa: ARG001
    given = {part: tensor.double() for part, tensor in written.items()}
    if "oft_R.weight" in given:
        scaled = "oft_R.scaled_oft" in given
        turned = rotated_inputs(layer.weight, given["oft_R.weight"], is_scaled=scaled)
        return Effect(turned - layer.weight)
    delta = _delta(layer, given)
    magnitude = given.get("dora_scale", given.get("lora_magnitude_vector.weight"))
    if magnitude is None:
        return delta
    if "dora_scale" not in given:
        magnitude = magnitude.reshape(-1, *(1 for _ in layer.weight.shape[1:]))
    together = layer.weight + delta.weight
    return Effect(decomposed(together, magnitude, FLOAT32_EPS) - layer.weight)


def _delta(layer: Layer, given: Parts) -> Effect:
    given = {part: tensor.double() for part, tensor in given.items()}
    shape, alpha = layer.weight.shape, given.get("alpha")
    if "hada_w1_a" in given:
        return Effect(hadamard(given, float(alpha) / given["hada_w1_b"].shape[0], shape))
    if {"lokr_w1", "lokr_w1_a"} & given.keys():
        return Effect(_kronecker_delta(given, shape))
    native = {
        own: given[part]
        for own, other in _RENAMED.items()
        for part in (own, other)
        if part in given
    }
    return low_rank_effect(layer, {**native, **({} if alpha is None else {"alpha": alpha})})


def _kronecker_delta(given: Parts, shape: torch.Size) -> Tensor:
    """Return the product of both factors; alpha counts where one of them is factored itself."""
    first, second, rank = given.get("lokr_w1"), given.get("lokr_w2"), 0
    if first is None:
        first, rank = given["lokr_w1_a"] @ given["lokr_w1_b"], given["lokr_w1_b"].shape[0]
    if second is None:
        a, b = given["lokr_w2_a"], given["lokr_w2_b"]
        second, rank = (tucker(given["lokr_t2"], a, b) if "lokr_t2" in given else a @ b), b.shape[0]
    return kronecker(first, second, float(given["alpha"]) / rank if rank else 1.0, shape)


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(
        sys.modules[__name__], folder, case, components, beside=_beside(case, components)
    )


def _beside(case: AdapterCase, components: Components) -> Parts:
    """Return the embeddings that ``bundle_additional_embeddings`` puts into the file."""
    if case.kind != "lora with embeddings":
        return {}
    random = torch.Generator().manual_seed(case.seed)
    encoders = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
    return {
        f"bundle_emb.myword.{part}": torch.randn(
            2, components[name].config.hidden_size, generator=random
        )
        for part, name in encoders.items()
        if name in components
    }


def why_not(kind: str, spelling: str, family: Family) -> str | None:
    if spelling == "kohya" and family == "sd15":
        return "the same as legacy"
    if spelling == "original" and kind == "lora with embeddings":
        return "that format holds the UNet alone"
    return None


ONETRAINER = Trainer(
    name="OneTrainer",
    kinds=(
        "lora",
        "lora with embeddings",
        "dora output",
        "dora input",
        "loha",
        "lokr",
        "lokr whole",
        "lokr both",
        "lokr tucker",
        "lokr dora output",
        "lokr dora input",
        "oft",
        "oft scaled",
        "oft shared",
    ),
    spellings=("legacy", "kohya", "diffusers", "original", "comfy"),
    layers=layers,
    write=write,
    why_not=why_not,
)
