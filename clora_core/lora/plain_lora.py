"""A whole adapter as a plain LoRA, and how near it is to what it stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import hypot

import torch
from torch import nn

from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.plain_layer import PlainLayer, RankLimits, plain_layer
from clora_core.recipe.lora.placement import Place
from clora_core.recipe.lora.shapes.size import Shape


@dataclass(frozen=True)
class PlainLora:
    """A plain LoRA.

    Attributes:
        layers: By component and name, sorted.
    """

    layers: Mapping[Place, PlainLayer]

    @property
    def factors(self) -> LoraFactors:
        """The LoRA that is written."""
        components: dict[str, dict[str, Factor]] = {}
        for (component, name), layer in self.layers.items():
            components.setdefault(component, {})[name] = layer.factor
        return LoraFactors(components)

    @property
    def error(self) -> float:
        """||D - D_r||_F / ||D||_F of all layers together."""
        size = hypot(*(layer.norm for layer in self.layers.values()))
        rest = hypot(*(layer.norm * layer.error for layer in self.layers.values()))
        return rest / size if size else 0.0


def plain_lora(
    adapter: LoraFactors,
    module_at: Callable[[Place], nn.Module],
    limits: RankLimits,
    dtype: torch.dtype,
    *,
    folds_scale: bool,
    said: Callable[[int, int], None] = lambda _done, _total: None,
) -> PlainLora:
    """Return an adapter as a plain LoRA; what changes no weight of two sides is left out.

    Args:
        adapter: Of any kind.
        module_at: Returns a layer of the base model, or one of its shape (``of_shape``).
        limits: Of the ranks.
        dtype: Of the numbers that are written.
        folds_scale: The file has no strength beside the factors.
        said: Is called with how many layers are done, and of how many.
    """
    places = sorted(
        (component, name) for component, layers in adapter.components.items() for name in layers
    )
    found: dict[Place, PlainLayer] = {}
    for done, place in enumerate(places, start=1):
        component, name = place
        update = adapter.of(component)[name]
        layer = plain_layer(update, module_at(place), limits, dtype, folds_scale=folds_scale)
        if layer is not None:
            found[place] = layer
        said(done, len(places))
    return PlainLora(found)


def of_shape(shape: Shape) -> nn.Module:
    """Return a layer whose weight has this shape and no numbers."""
    if len(shape) == 1:
        return nn.LayerNorm(shape[0], device="meta")
    out_features, in_features, *kernel = shape
    if kernel:
        size = (kernel[0], kernel[1])
        return nn.Conv2d(in_features, out_features, size, bias=False, device="meta")
    return nn.Linear(in_features, out_features, bias=False, device="meta")
