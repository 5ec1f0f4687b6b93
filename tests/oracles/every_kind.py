"""An adapter of every kind for the embedded world's layers, and its model with them folded in."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from adapters.case import AdapterCase, Components, Effect, Expected, Place
from adapters.cases import write_case
from oracles.core_runs import Core
from torch import Tensor, nn

from clora_core.lora.factors import LoraFactors

_FILES = {
    "LoRA": ("LyCORIS", "lora scalar", "kohya"),
    "Tucker": ("LyCORIS", "locon tucker", "kohya"),
    "LoHa": ("LyCORIS", "loha scalar", "kohya"),
    "LoHa, Tucker": ("LyCORIS", "loha tucker", "kohya"),
    "LoKr": ("LyCORIS", "lokr scalar", "kohya"),
    "LoKr, both cut": ("LyCORIS", "lokr both", "kohya"),
    "LoKr, Tucker": ("LyCORIS", "lokr tucker", "kohya"),
    "DoRA": ("LyCORIS", "dora output", "kohya"),
    "DoRA of inputs": ("LyCORIS", "dora input", "kohya"),
    "LoHa, DoRA": ("LyCORIS", "loha dora output", "kohya"),
    "LoKr, DoRA": ("LyCORIS", "lokr dora output", "kohya"),
    "LoKr, DoRA of inputs": ("LyCORIS", "lokr dora input", "kohya"),
    "OFT": ("LyCORIS", "oft rescale", "kohya"),
    "OFT of inputs": ("OneTrainer", "oft", "diffusers"),
    "BOFT": ("LyCORIS", "boft constraint rescale", "kohya"),
    "difference": ("LyCORIS", "full", "kohya"),
    "GLoRA": ("LyCORIS", "glora", "kohya"),
    "norms": ("LyCORIS", "norm", "lycoris"),
}
"""Trainer, kind and spelling of a file."""

KINDS = tuple(_FILES)


@dataclass(frozen=True)
class Adapter:
    """One file: what is read of it, and what it should do."""

    expected: Expected
    factors: LoraFactors

    @property
    def effects(self) -> Mapping[Place, Effect]:
        """What it adds to weights and biases, in float64."""
        return self.expected.effects


class EveryKind:
    """An adapter of each of ``KINDS``, written when first asked for.

    Args:
        folder: For the files.
        core: Of the base model, in float64.
        dtype: Of the files' numbers, as safetensors names it.
    """

    def __init__(self, folder: Path, core: Core, dtype: str = "F64") -> None:
        self._folder = folder
        self._core = core
        self._dtype = dtype
        self._made: dict[str, Adapter] = {}

    def __getitem__(self, kind: str) -> Adapter:
        if kind not in self._made:
            trainer, kind_there, spelling = _FILES[kind]
            case = AdapterCase(
                trainer=trainer,
                kind=kind_there,
                spelling=spelling,
                family="sd15",
                dtype=self._dtype,
                rank=2 if "LoKr" in kind else 4,
            )
            expected = write_case(self._folder, case, self._components)
            self._made[kind] = Adapter(expected, self._core.factors(expected.path))
        return self._made[kind]

    @cached_property
    def _components(self) -> Components:
        return {n: self._core.model.components[n] for n in ("unet", "text_encoder")}


@contextmanager
def folded(components: Components, weighted: Iterable[tuple[Adapter, float]]) -> Generator[None]:
    """Add the adapters' differences to the weights and biases of a model inside the block."""
    changed: dict[tuple[Place, str], Tensor] = {}
    for adapter, weight in weighted:
        for place, effect in adapter.effects.items():
            for name, difference in (("weight", effect.weight), ("bias", effect.bias)):
                if difference is not None:
                    total = changed.get((place, name), 0)
                    changed[place, name] = total + weight * difference
    before: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for ((component, layer), name), difference in changed.items():
            parameter = components[component].get_submodule(layer).get_parameter(name)
            before.append((parameter, parameter.data))
            parameter.data = (parameter.data.double() + difference).to(parameter.dtype)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def own_output(module: nn.Module, effect: Effect, x: Tensor) -> Tensor:
    """Return what a layer makes of ``x`` with an effect's differences folded in, and rounded."""
    names = {"weight": effect.weight, "bias": effect.bias}
    given = {
        name: (module.get_parameter(name).double() + difference).to(x.dtype)
        for name, difference in names.items()
        if difference is not None
    }
    return torch.func.functional_call(module, given, (x,))
