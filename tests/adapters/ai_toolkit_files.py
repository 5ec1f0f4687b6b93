"""Ostris's ai-toolkit for SD1.5 and SDXL: LoRA, LoKr, DoRA and full differences.

Written from toolkit/lora_special.py, network_mixins.py (get_state_dict), models/lokr.py and
models/DoRA.py. It names layers of both families as diffusers does, flat; until July 2024 a map
beside the code gave SDXL's Stability's names. Files are float16 unless asked otherwise.
"""

import sys
from pathlib import Path

import torch
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
from adapters.factors import Source, magnitudes, to_share
from adapters.kohya_files import low_rank_effect, low_rank_parts
from adapters.layers import (
    AROUND,
    IN_RESIDUAL,
    IN_TEXT,
    IN_TRANSFORMER,
    NORMS,
    chosen,
    layers_named,
    with_kernel,
)
from adapters.loops import decomposed, kronecker
from adapters.spellings import kohya_flat

_WHOLE_RANK = 9999999999.0
"""Rank and alpha that ``lokr_full_rank`` sets; in float16 it is infinite."""

_FACTOR = 8
"""``lokr_factor``; the first factor has it whether or not it is the smaller one."""


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    names = (*IN_TRANSFORMER, *IN_RESIDUAL, *AROUND)
    if case.kind == "full":
        names = (*IN_TRANSFORMER[:1], *IN_RESIDUAL[:2], *NORMS)
    found = chosen(case, components, layers_named(components, names, text=IN_TEXT))
    if case.kind == "dora":
        return [layer for layer in found if layer.weight.ndim == 2]
    if case.kind == "lokr factored":
        return [layer for layer in found if _can_be_cut(layer)]
    return with_kernel(found, wide=False) if case.kind == "lora" else found


def _can_be_cut(layer: Layer) -> bool:
    out, inner, *_ = layer.weight.shape
    return out % _FACTOR == 0 and inner % _FACTOR == 0


def name(case: AdapterCase, layer: Layer) -> str:
    return kohya_flat(layer, case.family, sgm=case.spelling == "kohya sgm")


def parts(case: AdapterCase, layer: Layer) -> Parts:
    source = Source(case, layer)
    if case.kind == "full":
        return full_parts(source, layer)
    if case.kind.startswith("lokr"):
        return _kronecker_parts(case, layer, source)
    shape = tuple(layer.weight.shape)
    if case.kind == "dora":  # no alpha is saved, and only alpha = rank is known again
        written = low_rank_parts(source, layer, shape, case.rank, alpha=None)
        norms = layer.weight.norm(dim=1)
        return {**written, "magnitude": magnitudes(norms, source.normal("m", norms.shape))}
    return low_rank_parts(source, layer, shape, case.rank, alpha=case.rank / 2)


def full_parts(source: Source, layer: Layer) -> Parts:
    """Return the difference of a whole weight and, where there is one, of its bias."""
    spread = float(layer.weight.square().mean().sqrt()) / 3
    written: Parts = {"diff": spread * source.normal("diff", layer.weight.shape)}
    if layer.bias is not None:
        written["diff_b"] = spread * source.normal("diff_b", layer.bias.shape)
    return written


def _kronecker_parts(case: AdapterCase, layer: Layer, source: Source) -> Parts:
    out, inner, *kernel = layer.weight.shape
    if case.kind == "lokr":
        (a, b), (c, d) = _near_square(out), _near_square(inner)
        second: Parts = {"lokr_w2": source.normal("w2", (b, d, *kernel))}
        alpha = _WHOLE_RANK
    else:
        (a, b), (c, d) = (_FACTOR, out // _FACTOR), (_FACTOR, inner // _FACTOR)
        wide = torch.Size(kernel).numel()
        second = {
            "lokr_w2_a": source.normal("w2_a", (b, case.rank)),
            "lokr_w2_b": source.normal("w2_b", (case.rank, d * wide)),
        }
        alpha = case.rank / 2
    first = source.normal("w1", (a, c))
    written: Parts = {"lokr_w1": first, **second, "alpha": torch.tensor(alpha)}
    return to_share(written, ["lokr_w1"], lambda p: effect(case, layer, p), layer)


def _near_square(size: int) -> tuple[int, int]:
    small = max(side for side in range(1, int(size**0.5) + 1) if size % side == 0)
    return small, size // small


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:
    given = {part: tensor.double() for part, tensor in written.items()}
    if case.kind == "full":
        return Effect(given["diff"], given.get("diff_b"))
    if case.kind.startswith("lokr"):
        return Effect(_kronecker_delta(layer, given))
    if case.kind == "dora":
        together = layer.weight + low_rank_effect(layer, given).weight
        return Effect(decomposed(together, given["magnitude"][:, None], 0.0) - layer.weight)
    return low_rank_effect(layer, given)


def _kronecker_delta(layer: Layer, given: Parts) -> Tensor:
    """Return w1 times w2; alpha counts only where one of them is factored."""
    if "lokr_w2" in given:
        return kronecker(given["lokr_w1"], given["lokr_w2"], 1.0, layer.weight.shape)
    second = given["lokr_w2_a"] @ given["lokr_w2_b"]
    scale = float(given["alpha"]) / given["lokr_w2_b"].shape[0]
    return kronecker(given["lokr_w1"], second, scale, layer.weight.shape)


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(sys.modules[__name__], folder, case, components)


def why_not(kind: str, spelling: str, family: Family) -> str | None:
    if spelling == "kohya sgm" and family == "sd15":
        return "its map of names was SDXL's alone"
    if spelling == "kohya sgm" and kind not in ("lora", "locon"):
        return "newer than its map of names"
    return None


AI_TOOLKIT = Trainer(
    name="ai-toolkit",
    kinds=("lora", "locon", "lokr", "lokr factored", "dora", "full"),
    spellings=("kohya diffusers", "kohya sgm"),
    layers=layers,
    write=write,
    why_not=why_not,
)
