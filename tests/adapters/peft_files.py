"""peft: every tuner's ``save_pretrained``, written and merged by peft itself.

A folder is of one model. The model here holds the wanted layers alone, under the real one's class
and names, so that the settings beside the tensors are those of the real one.

What peft merges is what it computes in training, but for OFT on convolutions wider than a pixel:
there its forward folds overlapping patches and is no weight at all, so such files are not made.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import (
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from adapters.case import (
    DTYPES,
    AdapterCase,
    Components,
    Effect,
    Expected,
    Family,
    Layer,
    Place,
    Trainer,
)
from adapters.factors import SHARE, Source, magnitudes, rotation_spread
from adapters.in_float64 import in_float64
from adapters.layers import IN_RESIDUAL, IN_TEXT, IN_TRANSFORMER, chosen, layers_named, with_kernel

Named = Mapping[str, Layer]
"""Layers by their names in the model that peft is given."""

_LINEAR_IN = ("lora_B", "hada_w1_a", "lokr_w1", "lokr_w1_a", "vera_lambda_b")
_SIDE = 4


@dataclass(frozen=True)
class Tuner:
    """How peft is asked for one kind.

    Attributes:
        config: Its settings' class.
        options: Beside rank, alpha and layers.
        where: Which layers: ``linear``, ``conv`` (wider than a pixel), ``narrow`` (all others),
            ``biased``, ``any``.
        component: That is trained.
    """

    config: type[PeftConfig]
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = "narrow"
    component: str = "unet"


_DORA = {"use_dora": True}
_CUT = {"decompose_factor": 4, "init_weights": "lycoris"}
_TUCKER = {"use_effective_conv2d": True}
# Named here and not in a file's choice of layers, a pattern only warns.
_PATTERNS = {"rank_pattern": {"attn2.to_k": 8}, "alpha_pattern": {"to_k": 2.0, "proj_in": 6.0}}
_FEEDFORWARD = {"feedforward_modules": ["ff.net.0.proj", "resnets.0.conv1"]}

TUNERS: Mapping[str, Tuner] = {
    "lora": Tuner(LoraConfig),
    "lora conv": Tuner(LoraConfig, where="conv"),
    "lora rank-stabilised": Tuner(LoraConfig, {"use_rslora": True}),
    "lora patterns": Tuner(LoraConfig, _PATTERNS),
    "lora bias": Tuner(LoraConfig, {"lora_bias": True}, "biased"),
    "lora text": Tuner(LoraConfig, component="text_encoder"),
    "lora text 2": Tuner(LoraConfig, component="text_encoder_2"),
    "dora": Tuner(LoraConfig, _DORA, "linear"),
    "dora conv": Tuner(LoraConfig, _DORA, "conv"),
    "loha": Tuner(LoHaConfig),
    "loha conv": Tuner(LoHaConfig, where="conv"),
    "loha tucker": Tuner(LoHaConfig, _TUCKER, "conv"),
    "lokr": Tuner(LoKrConfig, _CUT),
    "lokr whole": Tuner(LoKrConfig),
    "lokr both": Tuner(LoKrConfig, {"decompose_both": True}),
    "lokr conv": Tuner(LoKrConfig, _CUT, "conv"),
    "lokr tucker": Tuner(LoKrConfig, {**_CUT, **_TUCKER}, "conv"),
    "oft": Tuner(OFTConfig),
    "oft exact": Tuner(OFTConfig, {"use_cayley_neumann": False}),
    "oft shared": Tuner(OFTConfig, {"block_share": True}),
    "oft constrained": Tuner(OFTConfig, {"coft": True, "eps": 1.0}),
    "boft": Tuner(BOFTConfig, where="any"),
    "ia3": Tuner(IA3Config, _FEEDFORWARD, "any"),
    "vera": Tuner(VeraConfig, where="linear"),
}


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    tuner = TUNERS[case.kind]
    names = (*IN_TRANSFORMER, *IN_RESIDUAL)
    found = chosen(case, components, layers_named(components, names, text=IN_TEXT))
    found = [layer for layer in found if layer.component == tuner.component]
    if tuner.where == "linear":
        return [layer for layer in found if layer.weight.ndim == 2]
    if tuner.where == "biased":
        return [layer for layer in found if layer.bias is not None]
    return found if tuner.where == "any" else with_kernel(found, wide=tuner.where == "conv")


def settings(case: AdapterCase, names: Sequence[str]) -> PeftConfig:
    """Return the settings of a case; alpha is never the rank."""
    tuner = TUNERS[case.kind]
    options = {"target_modules": list(names), **tuner.options}
    if tuner.config is LoraConfig:
        options |= {"r": case.rank, "lora_alpha": case.rank / 2}
    elif tuner.config in (LoHaConfig, LoKrConfig):
        rank = 64 if case.kind == "lokr whole" else case.rank
        options |= {"r": rank, "alpha": rank / 2}
    elif tuner.config is OFTConfig:
        options |= {"r": 0, "oft_block_size": _SIDE}
    elif tuner.config is BOFTConfig:
        options |= {"boft_block_size": _SIDE}
    elif tuner.config is VeraConfig:
        options |= {"r": case.rank}
    else:
        ends = options["feedforward_modules"]
        options["feedforward_modules"] = [n for n in names if n.endswith(tuple(ends))]
    return tuner.config(**options)


def holding(layers_: Named, model: nn.Module) -> nn.Module:
    """Return a model of the class of ``model`` that holds copies of these layers alone."""
    own = type(model)
    root = type(own.__name__, (nn.Module,), {"__module__": own.__module__})()
    for name, layer in layers_.items():
        *parents, last = name.split(".")
        at = root
        for parent in parents:
            if not hasattr(at, parent):
                at.add_module(parent, nn.Module())
            at = at.get_submodule(parent)
        at.add_module(last, copy.deepcopy(layer.module))
    return root


def train(case: AdapterCase, model: nn.Module, layers_: Named) -> None:
    """Fill what peft has put into ``model`` as training would, then cast it to the file's dtype."""
    tuned = _tuned(model, layers_)
    for name, module in tuned.items():
        _fill(Source(case, layers_[name]), module)
        _to_share(module, layers_[name])
        _set_magnitudes(module, case, layers_[name])
    dtype = DTYPES[case.dtype]
    for module in tuned.values():
        for _, parameter in _own_parameters(module):
            parameter.data = parameter.data.to(dtype)


def _tuned(model: nn.Module, layers_: Named) -> dict[str, BaseTunerLayer]:
    root = model.get_base_model() if isinstance(model, PeftModel) else model
    return {name: root.get_submodule(name) for name in layers_}


def _own_parameters(module: BaseTunerLayer) -> Iterable[tuple[str, nn.Parameter]]:
    for name, parameter in module.named_parameters():
        if not name.startswith("base_layer."):
            yield name, parameter


def _fill(source: Source, module: BaseTunerLayer) -> None:
    with torch.no_grad():
        for name, parameter in _own_parameters(module):
            part, draws = name.split(".")[0], source.normal(name, parameter.shape)
            if part == "oft_R":
                draws = draws * rotation_spread(_SIDE) * 2
            elif part == "boft_R":
                draws = draws * rotation_spread(_SIDE) * 2  # its skew matrix is halved
            elif part in ("boft_s", "ia3_l"):
                draws = 1 + 0.3 * draws
            parameter.copy_(draws)


def _to_share(module: Any, layer: Layer) -> None:
    """Make a product of factors as large as a third of the weight; nothing else is changed."""
    factors = [p for name, p in _own_parameters(module) if name.split(".")[0] in _LINEAR_IN]
    if factors:
        with torch.no_grad():
            size = module.get_delta_weight("default").norm() / layer.weight.norm()
            factors[0].mul_(float(SHARE / size))


def _set_magnitudes(module: Any, case: AdapterCase, layer: Layer) -> None:
    """Give a DoRA layer lengths near those of the base weight's outputs."""
    for own in getattr(module, "lora_magnitude_vector", {}).values():
        norms = layer.weight.flatten(1).norm(dim=1).reshape(own.weight.shape)
        draws = Source(case, layer).normal("magnitude", own.weight.shape)
        own.weight.data = magnitudes(norms, draws).to(own.weight.dtype)


def effects(model: nn.Module, layers_: Named) -> dict[Place, Effect]:
    """Return what peft's own merge adds to each layer of a model that was read from a file."""
    found: dict[Place, Effect] = {}
    with in_float64(), torch.no_grad():
        exact = copy.deepcopy(model).double().eval()
        for name, module in _tuned(exact, layers_).items():
            module.merge()
            base, before = module.get_base_layer(), layers_[name]
            bias = None if base.bias is None else base.bias.detach() - before.bias
            changed = bias is not None and bool(bias.any())
            difference = base.weight.detach() - before.weight
            found[before.place] = Effect(difference, bias if changed else None)
    return found


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    own = {layer.name: layer for layer in layers(case, components)}
    model = components[TUNERS[case.kind].component]
    place = folder / str(case)
    # Without this, BOFT tries to build an extension for CUDA wherever it finds a compiler.
    with patch("peft.tuners.boft.layer.get_fbd_cuda", return_value=None):
        trained = get_peft_model(holding(own, model), settings(case, list(own)))
        train(case, trained, own)
        trained.save_pretrained(place)
        read = PeftModel.from_pretrained(holding(own, model), place)
    return Expected(place / "adapter_model.safetensors", effects(read, own))


def why_not(kind: str, spelling: str, family: Family) -> str | None:  # noqa: ARG001
    if kind == "lora text 2" and family == "sd15":
        return "no second text encoder"
    return None


PEFT = Trainer(
    name="peft",
    kinds=tuple(TUNERS),
    spellings=("peft",),
    layers=layers,
    write=write,
    why_not=why_not,
)
