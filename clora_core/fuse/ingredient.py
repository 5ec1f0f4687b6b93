"""What an adapter is fused from, and what comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.config import PromptSyntax
from clora_core.recipe.errors import FusionError
from clora_core.recipe.prompts.marked import concept_words
from clora_core.recipe.row import Lora

Layer = tuple[str, str]
"""Component (``unet``, ``text_encoder`` ...) and dotted name of a layer."""

KEYS_AND_VALUES = (".attn2.to_k", ".attn2.to_v")
"""Ends of the names of the layers that make the text's keys and values."""

DrawImages = Callable[[int], Sequence[UInt8[np.ndarray, "height width 3"]]]
"""Returns images that the ingredient with this index makes alone."""


@dataclass(frozen=True)
class Ingredient:
    """One concept LoRA of a fusion."""

    lora: Lora
    factors: LoraFactors
    syntax: PromptSyntax = "plain"

    @property
    def words(self) -> str:
        """What calls the concept in a prompt: its trigger and its subject."""
        return concept_words(self.lora, self.syntax)

    def prompts(self, templates: Sequence[str]) -> list[str]:
        """Return the concept's words in each template, which has ``{}`` for them."""
        return [template.replace("{}", self.words) for template in templates]

    def factor(self, layer: Layer) -> Factor | None:
        """Return the factors of ``layer`` with the row's weight, None if the LoRA has none.

        Raises:
            FusionError: The LoRA's update of this layer is no product of two factors.
        """
        component, name = layer
        found = self.factors.of(component).get(name)
        if found is None:
            return None
        if not isinstance(found, Factor):
            raise FusionError(
                f"plain LoRAs alone are fused, and LoRA {self.lora.name!r} changes "
                f"{component}.{name} by no product of two factors; convert it with "
                "`clora loras convert`, or use 'merge' or another method that fuses nothing"
            )
        return Factor(found.down, found.up, found.scale * self.lora.weight)

    def matrices(
        self, layer: Layer
    ) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]] | None:
        """Return a linear layer's factors in float64, scale and weight in the second."""
        found = self.factor(layer)
        if found is None:
            return None
        down, up = found.down.flatten(start_dim=1), found.up.flatten(start_dim=1)
        return down.double(), up.double() * found.scale


@dataclass(frozen=True, kw_only=True)
class FusedAdapter:
    """One adapter that stands for several.

    Attributes:
        factors: Of every layer, in float64; scales are 1.
        final_loss: What its recipe minimises, at the end.
        losses: The same over the steps of an optimisation; empty for a recipe in closed form.
        unet_evaluations: Samples through the UNet that it took; one with a gradient is one, too.
    """

    factors: LoraFactors
    final_loss: float
    losses: tuple[float, ...] = ()
    unet_evaluations: int = 0


def layers_of(ingredients: Sequence[Ingredient]) -> list[Layer]:
    """Return every layer that an ingredient changes, in a fixed order."""
    return sorted(
        {
            (component, name)
            for ingredient in ingredients
            for component, layers in ingredient.factors.components.items()
            for name in layers
        }
    )


def summed(ingredients: Sequence[Ingredient], layer: Layer) -> Factor:
    """Return the sum of all deltas on ``layer`` as one factor, its ranks one after the other."""
    factors = [found for each in ingredients if (found := each.factor(layer)) is not None]
    ndim = max(factor.down.ndim for factor in factors)
    downs = [_as(factor.down.double(), ndim) for factor in factors]
    ups = [_as(factor.up.double() * factor.scale, ndim) for factor in factors]
    return Factor(torch.cat(downs).contiguous(), torch.cat(ups, dim=1).contiguous(), 1.0)


def by_component(layers: dict[Layer, Factor]) -> LoraFactors:
    """Return the layers as a LoRA."""
    components: dict[str, dict[str, Factor]] = {}
    for (component, name), factor in layers.items():
        components.setdefault(component, {})[name] = factor
    return LoraFactors(components)


def _as(factor: Float[Tensor, "rows columns ..."], ndim: int) -> Float[Tensor, "rows columns ..."]:
    """Return a 1x1 convolution's factor as it is written with four sides."""
    return factor if factor.ndim == ndim else factor[:, :, None, None]
