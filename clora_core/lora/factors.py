"""A LoRA as what the bank needs: for every layer it changes, two factors and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Factor:
    """One layer's delta ``up @ down * scale``.

    Attributes:
        down: From the layer's input; with the kernel's two sides for a convolution.
        up: To the layer's output; with two sides of 1 where the file writes a convolution.
        scale: alpha / rank, as the file says; 1 where it says nothing.
    """

    down: Float[Tensor, "rank in *kernel"]
    up: Float[Tensor, "out rank *one"]
    scale: float

    @property
    def rank(self) -> int:
        """Inner size of the product."""
        return self.down.shape[0]

    def to(self, device: torch.device) -> "Factor":
        """Return the factor on ``device``, in the numbers that it has."""
        return Factor(self.down.to(device), self.up.to(device), self.scale)


@dataclass(frozen=True)
class LoraFactors:
    """A whole LoRA: component (``unet``, ``text_encoder`` …) to layer name to factor."""

    components: Mapping[str, Mapping[str, Factor]]

    def of(self, component: str) -> Mapping[str, Factor]:
        """Return the factors of one component; empty if the LoRA leaves it alone."""
        return self.components.get(component, {})

    def to(self, device: torch.device) -> "LoraFactors":
        """Return the LoRA on ``device``, in the numbers of its file."""
        return LoraFactors(
            {
                component: {layer: factor.to(device) for layer, factor in factors.items()}
                for component, factors in self.components.items()
            }
        )

    @property
    def num_bytes(self) -> int:
        """Memory of all factors."""
        return sum(
            tensor.numel() * tensor.element_size()
            for factors in self.components.values()
            for factor in factors.values()
            for tensor in (factor.down, factor.up)
        )
