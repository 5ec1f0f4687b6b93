"""LyCORIS: every algorithm that it trains, written and applied by its own modules.

A module of the library is made for a layer and filled; its ``state_dict`` is what the file gets.
A second one is made from the file's tensors as the library reads them, and what it adds when it is
called is the effect. Three things that its reader cannot recover are set here from the tensors:
the axis of ``dora_scale``, a swapped Kronecker factorisation and the side of IA3.
"""

import copy
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from torch import nn

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
from adapters.factors import Source, magnitudes, norms_along, rotation_spread, to_share
from adapters.in_float64 import in_float64, trained_effect
from adapters.layers import (
    IN_RESIDUAL,
    IN_TEXT,
    IN_TRANSFORMER,
    NORMS,
    chosen,
    layers_named,
    with_kernel,
)
from adapters.spellings import kohya_flat, lycoris_flat


@dataclass(frozen=True)
class Algorithm:
    """How the library is asked for one kind.

    Attributes:
        module: Its class.
        options: Of the class, beside rank and alpha.
        alpha_over_rank: Alpha, as a share of the rank; the library's ``constraint`` is an option.
        linear_in: Parts in which the difference is linear together; none if it is no product.
        wide: Only convolutions wider than a pixel (True) or none such (False).
    """

    module: type[nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    alpha_over_rank: float = 0.5
    linear_in: tuple[str, ...] = ()
    wide: bool | None = None


_UP = ("lora_up.weight",)
_W1 = ("lokr_w1", "lokr_w1_a")
_OUT, _IN = {"weight_decompose": True}, {"weight_decompose": True, "wd_on_out": False}
_BOTH = {"decompose_both": True}
_TUCKER = {"use_tucker": True}


def _lokr(wide: bool | None = None, **options: Any) -> Algorithm:
    return Algorithm(LokrModule, options, linear_in=_W1, wide=wide)


ALGORITHMS: Mapping[str, Algorithm] = {
    "lora": Algorithm(LoConModule, linear_in=_UP, wide=False),
    "locon": Algorithm(LoConModule, linear_in=_UP, wide=True),
    "locon tucker": Algorithm(LoConModule, _TUCKER, linear_in=_UP, wide=True),
    "lora scalar": Algorithm(LoConModule, {"use_scalar": True}, linear_in=_UP),
    "lora rank-stabilised": Algorithm(LoConModule, {"rs_lora": True}, linear_in=_UP),
    "dora output": Algorithm(LoConModule, _OUT, linear_in=_UP),
    "dora input": Algorithm(LoConModule, _IN, linear_in=_UP),
    "dora tucker": Algorithm(LoConModule, {**_OUT, **_TUCKER}, linear_in=_UP, wide=True),
    "loha": Algorithm(LohaModule, linear_in=("hada_w1_a",), wide=False),
    "loha conv": Algorithm(LohaModule, linear_in=("hada_w1_a",), wide=True),
    "loha tucker": Algorithm(LohaModule, _TUCKER, linear_in=("hada_w1_a",), wide=True),
    "loha scalar": Algorithm(LohaModule, {"use_scalar": True}, linear_in=("hada_w1_a",)),
    "loha dora output": Algorithm(LohaModule, _OUT, linear_in=("hada_w1_a",)),
    "loha dora input": Algorithm(LohaModule, _IN, linear_in=("hada_w1_a",)),
    "lokr whole": _lokr(wide=False, full_matrix=True),
    "lokr conv whole": _lokr(wide=True, full_matrix=True),
    "lokr": _lokr(wide=False, factor=4),
    "lokr conv": _lokr(wide=True, factor=4),
    "lokr tucker": _lokr(wide=True, factor=4, **_TUCKER),
    "lokr both": _lokr(factor=-1, **_BOTH),
    "lokr unbalanced": _lokr(factor=4, unbalanced_factorization=True, **_BOTH),
    "lokr scalar": _lokr(factor=4, use_scalar=True),
    "lokr dora output": _lokr(factor=4, **_OUT),
    "lokr dora input": _lokr(factor=4, **_IN),
    "full": Algorithm(FullModule),
    "norm": Algorithm(NormModule),
    "oft": Algorithm(DiagOFTModule, {"constraint": 0.0}),
    "oft constraint": Algorithm(DiagOFTModule, {"constraint": 0.02}),
    "oft rescale": Algorithm(DiagOFTModule, {"constraint": 0.0, "rescaled": True}),
    "boft": Algorithm(ButterflyOFTModule, {"constraint": 0.0}),
    "boft constraint rescale": Algorithm(
        ButterflyOFTModule, {"constraint": 0.02, "rescaled": True}
    ),
    "ia3 output": Algorithm(IA3Module),
    "ia3 input": Algorithm(IA3Module, {"train_on_input": True}),
    "glora": Algorithm(GLoRAModule, linear_in=("a2.weight", "b2.weight")),
}
_FOLDED = ("rs_lora", "use_scalar")
"""Options that a file has in its alpha or in a factor, and a reader need not know of."""

_DECOMPOSED = ("weight_decompose", "wd_on_out")
SCALAR = 0.7
"""That a trained ``use_scalar`` has reached; it is folded into a factor when a file is written."""


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    """Return what the preset ``full`` trains, and of it what suits the kind."""
    algorithm = ALGORITHMS[case.kind]
    # The preset names layers outside the blocks as diffusers does; sd-scripts' SDXL has others.
    has_their_names = case.spelling == "lycoris" or case.family == "sd15"
    around = ("time_embedding.linear_1", "conv_in", "conv_out") if has_their_names else ()
    if algorithm.module is DiagOFTModule:
        around = around[:2]  # the few outputs of the last one are blocks of one, which cannot turn
    names, text = (*IN_TRANSFORMER, *IN_RESIDUAL, *around), IN_TEXT
    if algorithm.module is NormModule:
        names, text = (NORMS if case.spelling == "lycoris" else NORMS[:-1]), ()
    if case.spelling == "lycoris":
        text = ()  # a network of the library is of one module: here, the UNet
    found = chosen(case, components, layers_named(components, names, text=text))
    return found if algorithm.wide is None else with_kernel(found, wide=algorithm.wide)


def parts(case: AdapterCase, layer: Layer) -> Parts:
    """Return the tensors that training leaves of one layer, in float32."""
    algorithm, source = ALGORITHMS[case.kind], Source(case, layer)
    takes_weight = algorithm.module is FullModule  # off the layer, into itself
    base = copy.deepcopy(layer.module) if takes_weight else layer.module
    module = _module(algorithm, base, case.rank, algorithm.alpha_over_rank * case.rank)
    _train(module, layer, source)
    written = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    written = _sized(algorithm, case.rank, layer, written)
    if "dora_scale" in written:
        shape = written["dora_scale"].shape
        norms = norms_along(layer.weight, 0 if shape[0] == layer.weight.shape[0] else 1)
        written["dora_scale"] = magnitudes(norms, source.normal("dora_scale", shape))
    return written


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:
    """Return what the library adds to ``layer`` from the tensors of a file."""
    return _effect(ALGORITHMS[case.kind], case.rank, layer, written)


def _effect(algorithm: Algorithm, rank: int, layer: Layer, written: Parts) -> Effect:
    given = {name: tensor.double() for name, tensor in written.items()}
    alpha = float(given.get("alpha", torch.tensor(1.0)))
    options = {name: value for name, value in algorithm.options.items() if name not in _FOLDED}
    if "constraint" in options:
        options["constraint"] = alpha
    with in_float64():
        module = _module(replace(algorithm, options=options), exact(layer.module), rank, alpha)
        module.double().load_state_dict(given, strict=True)
        return trained_effect(module, layer)


@functools.lru_cache(maxsize=64)
def exact(module: nn.Module) -> nn.Module:
    """Return a copy in float64; many cases are of the same layers, and none changes them."""
    return copy.deepcopy(module).double()


def _module(algorithm: Algorithm, base: nn.Module, rank: int, alpha: float) -> Any:
    if algorithm.module is NormModule:
        return NormModule("", base)
    if algorithm.module is ButterflyOFTModule:
        return _butterfly(base, rank, algorithm.options)
    return algorithm.module("", base, lora_dim=rank, alpha=alpha, **algorithm.options)


def _butterfly(base: nn.Module, rank: int, options: Mapping[str, Any]) -> nn.Module:
    """Return the module with the smallest blocks from ``rank`` on that the layer has room for."""
    for dim in (*range(rank, 65), -1):
        try:
            return ButterflyOFTModule("", base, lora_dim=dim, **options)
        except ValueError:
            continue
    raise AssertionError(f"{base} cannot be cut into blocks")


def _train(module: Any, layer: Layer, source: Source) -> None:
    if isinstance(module, FullModule):
        module.apply_to()  # from here on it holds the weight itself
        spread = float(layer.weight.std()) / 3
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter += spread * source.normal(name, parameter.shape)
        return
    rotated = getattr(module, "oft_blocks", None)
    spread = 0.3 if rotated is None else rotation_spread(rotated.shape[-1])
    if rotated is not None:
        spread /= rotated.shape[0] ** 0.5 if rotated.ndim == 4 else 1.0
    source.fill(module, spread=1.0 if _is_product(module) else spread)
    with torch.no_grad():
        if hasattr(module, "rescale"):
            module.rescale.copy_(1 + 0.2 * source.normal("rescale", module.rescale.shape))
        if isinstance(getattr(module, "scalar", None), nn.Parameter):
            module.scalar.fill_(SCALAR)


def _is_product(module: nn.Module) -> bool:
    return isinstance(module, LoConModule | LohaModule | LokrModule | GLoRAModule)


def _sized(algorithm: Algorithm, rank: int, layer: Layer, written: Parts) -> Parts:
    """Return a product of factors that is a third of the weight; anything else as it is."""
    linear = [name for name in algorithm.linear_in if name in written]
    if not linear:
        return written
    options = {n: v for n, v in algorithm.options.items() if n not in _DECOMPOSED}
    plain = replace(algorithm, options=options)
    bare = {name: tensor for name, tensor in written.items() if name != "dora_scale"}
    sized = to_share(bare, linear, lambda parts: _effect(plain, rank, layer, parts), layer)
    return {**written, **sized}


def name(case: AdapterCase, layer: Layer) -> str:
    if case.spelling == "lycoris":
        return lycoris_flat(layer)
    return kohya_flat(layer, case.family, sgm=case.family == "sdxl")


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(sys.modules[__name__], folder, case, components)


LYCORIS = Trainer(
    name="LyCORIS",
    kinds=tuple(ALGORITHMS),
    spellings=("kohya", "lycoris"),
    layers=layers,
    write=write,
    why_not=always,
)
