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
from dataclasses import dataclass, field
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
from torch import Tensor, nn

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
from adapters.factors import Source, magnitudes, rotation_spread, to_share
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
    module = _new(case, base, alpha=algorithm.alpha_over_rank * case.rank)
    _train(module, layer, source)
    written = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    if algorithm.linear_in:
        written = _sized(algorithm, case, layer, written)
    if "dora_scale" in written:
        written["dora_scale"] = _dora_scale(layer, written, source)
    return written


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:
    """Return what the library adds to ``layer`` from the tensors of a file."""
    given = {name: tensor.double() for name, tensor in written.items()}
    with in_float64():
        module = _read(case, exact(layer.module), given).double()
        module.load_state_dict(given, strict=True)
        return trained_effect(module, layer)


@functools.lru_cache(maxsize=64)
def exact(module: nn.Module) -> nn.Module:
    """Return a copy in float64; many cases are of the same layers, and none changes them."""
    return copy.deepcopy(module).double()


def _new(case: AdapterCase, base: nn.Module, *, alpha: float, **more: Any) -> Any:
    algorithm = ALGORITHMS[case.kind]
    options = {**algorithm.options, **more}
    if algorithm.module is NormModule:
        return NormModule("", base)
    if algorithm.module is ButterflyOFTModule:
        return _butterfly(base, case.rank, options)
    return algorithm.module("", base, lora_dim=case.rank, alpha=alpha, **options)


def _butterfly(base: nn.Module, rank: int, options: Mapping[str, Any]) -> nn.Module:
    """Return the module with the smallest blocks from ``rank`` on that the layer has room for."""
    for dim in (*range(rank, 65), -1):
        try:
            return ButterflyOFTModule("", base, lora_dim=dim, **options)
        except ValueError:
            continue
    raise AssertionError(f"{base} cannot be cut into blocks")


def _read(case: AdapterCase, base: nn.Module, given: Parts) -> Any:
    """Return the module that reads a file, its strength by the file's alpha alone."""
    alpha = float(given.get("alpha", torch.tensor(1.0)))
    more: dict[str, Any] = {}
    options = ALGORITHMS[case.kind].options
    if "rs_lora" in options:
        more["rs_lora"] = False  # the alpha in the file has the root in it
    if "use_scalar" in options:
        more["use_scalar"] = False
    if "constraint" in options:
        more["constraint"] = alpha
    return _new(case, base, alpha=alpha, **more)


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


def _sized(algorithm: Algorithm, case: AdapterCase, layer: Layer, written: Parts) -> Parts:
    bare = {name: tensor for name, tensor in written.items() if name != "dora_scale"}
    kind = case.kind
    for axis in ("output", "input"):
        kind = kind.replace(f" dora {axis}", "").replace(f"dora {axis}", "lora scalar")
    kind = kind.replace("dora tucker", "locon tucker")
    plain = AdapterCase(
        trainer=case.trainer, kind=kind, spelling=case.spelling, family=case.family, rank=case.rank
    )
    present = [name for name in algorithm.linear_in if name in bare]
    sized = to_share(bare, present, lambda parts: effect(plain, layer, parts), layer)
    return {name: sized.get(name, tensor) for name, tensor in written.items()}


def _dora_scale(layer: Layer, written: Parts, source: Source) -> Tensor:
    """Return magnitudes near the norms that the base weight has along their axis."""
    shape = written["dora_scale"].shape
    return magnitudes(_norms(layer.weight, shape), source.normal("dora_scale", shape)).float()


def _norms(weight: Tensor, shape: torch.Size) -> Tensor:
    axis = 0 if shape[0] == weight.shape[0] else 1
    others = [dim for dim in range(weight.ndim) if dim != axis]
    return weight.pow(2).sum(others).sqrt().reshape(shape)


def name(case: AdapterCase, layer: Layer) -> str:
    if case.spelling == "lycoris":
        return lycoris_flat(layer)
    return kohya_flat(layer, case.family, sgm=case.family == "sdxl")


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(sys.modules[__name__], folder, case, components)


def why_not(kind: str, spelling: str, family: Family) -> str | None:  # noqa: ARG001
    return None


LYCORIS = Trainer(
    name="LyCORIS",
    kinds=tuple(ALGORITHMS),
    spellings=("kohya", "lycoris"),
    layers=layers,
    write=write,
    why_not=why_not,
)
