"""What a case of the corpus is, who writes it, and what its file does to a base model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Family = Literal["sd15", "sdxl"]
FAMILIES: tuple[Family, ...] = ("sd15", "sdxl")

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""By the names that safetensors gives them."""

Components = Mapping[str, nn.Module]
"""Component name to the model; the UNet comes first."""

Place = tuple[str, str]
"""Component (``unet``, ``text_encoder``, ``text_encoder_2``) and dotted name of a layer."""

Parts = dict[str, Tensor]
"""The tensors of one layer, by the end of their names, as its trainer writes them."""


@dataclass(frozen=True, kw_only=True)
class AdapterCase:
    """One file of the corpus.

    Attributes:
        trainer: The tool that writes it.
        kind: What it trains, and how its tensors are cut.
        spelling: How it names layers.
        family: The base model's.
        dtype: Of the file's factors, as safetensors names it.
        rank: Of low-rank factors, or how many blocks a rotation has.
        seed: Of the factors.
        places: Layers to write, by component and name; None for those that the trainer trains
            among the corpus's choice.
    """

    trainer: str
    kind: str
    spelling: str
    family: Family
    dtype: str = "F32"
    rank: int = 4
    seed: int = 0
    places: tuple[Place, ...] | None = None

    def __str__(self) -> str:
        dtype = "" if self.dtype == "F32" else f"-{self.dtype}"
        name = f"{self.trainer}-{self.kind}-{self.spelling}-{self.family}{dtype}"
        return name.replace(" ", "_")


@dataclass(frozen=True)
class Layer:
    """A layer of the base model that a file changes."""

    component: str
    name: str
    model: nn.Module

    @property
    def module(self) -> nn.Module:
        return self.model.get_submodule(self.name)

    @property
    def residuals(self) -> int:
        """Residual blocks of each level of the UNet on the way down."""
        return self.model.config.layers_per_block

    @property
    def upsampler_place(self) -> int:
        """Place of an upsampler in its block: after a residual block, and an attention if any."""
        level = self.model.get_submodule(self.name.partition(".upsamplers")[0])
        return 2 if getattr(level, "attentions", None) else 1

    @property
    def place(self) -> Place:
        return self.component, self.name

    @property
    def is_norm(self) -> bool:
        return isinstance(self.module, nn.GroupNorm | nn.LayerNorm)

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.module.weight.shape[2:])

    @property
    def weight(self) -> Tensor:
        return self.module.weight.detach().double()

    @property
    def bias(self) -> Tensor | None:
        bias = self.module.bias
        return None if bias is None else bias.detach().double()


@dataclass(frozen=True)
class Effect:
    """What a file adds to one layer at weight 1, in float64; None where it adds nothing.

    Attributes:
        weight: Effective weight less the base weight.
        bias: The same of the bias.
    """

    weight: Tensor | None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Expected:
    """A written file and what it means.

    Attributes:
        path: The safetensors file; peft's own is ``adapter_model.safetensors`` in a new folder.
        effects: By component and dotted layer name of the base model as it was given.
    """

    path: Path
    effects: Mapping[Place, Effect]

    @property
    def weight(self) -> Mapping[Place, Tensor]:
        return {p: e.weight for p, e in self.effects.items() if e.weight is not None}

    @property
    def bias(self) -> Mapping[Place, Tensor]:
        return {p: e.bias for p, e in self.effects.items() if e.bias is not None}


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A tool that writes adapters.

    Attributes:
        name: As the table says it.
        kinds: What it trains.
        spellings: How it names layers.
        layers: Of a case, in a base model.
        write: Writes a case into a folder, with what it means.
        why_not: Why there is no file of a kind, spelling and family; None where there is.
    """

    name: str
    kinds: tuple[str, ...]
    spellings: tuple[str, ...]
    layers: Callable[[AdapterCase, Components], list[Layer]]
    write: Callable[[Path, AdapterCase, Components], Expected]
    why_not: Callable[[str, str, Family], str | None]


def always(kind: str, spelling: str, family: Family) -> str | None:  # noqa: ARG001
    """Return no reason: there is a file of each kind, spelling and family."""
    return None


class LayerByLayer(Protocol):
    """What a trainer does that treats each layer by itself."""

    def layers(self, case: AdapterCase, components: Components) -> list[Layer]: ...
    def parts(self, case: AdapterCase, layer: Layer) -> Parts: ...
    def effect(self, case: AdapterCase, layer: Layer, written: Parts) -> Effect: ...
    def name(self, case: AdapterCase, layer: Layer) -> str: ...


def write_by_layer(
    tool: LayerByLayer,
    folder: Path,
    case: AdapterCase,
    components: Components,
    *,
    beside: Mapping[str, Tensor] | None = None,
) -> Expected:
    """Write the case's layers into one file; what each does is computed from the file's numbers.

    Args:
        tool: The trainer.
        folder: For the file.
        case: To write.
        components: Of the base model.
        beside: Tensors that belong to no layer.
    """
    effects: dict[Place, Effect] = {}
    tensors = dict(beside or {})
    for layer in tool.layers(case, components):
        parts = {part: saved(case, tensor) for part, tensor in tool.parts(case, layer).items()}
        effects[layer.place] = tool.effect(case, layer, {n: t.double() for n, t in parts.items()})
        tensors |= {f"{tool.name(case, layer)}.{part}": t for part, t in parts.items()}
    path = folder / f"{case}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return Expected(path, effects)


def saved(case: AdapterCase, tensor: Tensor) -> Tensor:
    """Return a tensor as trainers save it: all in the chosen precision, else as it is."""
    return (
        tensor.detach().clone() if case.dtype == "F32" else tensor.detach().to(DTYPES[case.dtype])
    )
