"""A LoRA as what the bank needs: for every layer it changes, two factors and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Factor:
    """One layer's delta ``up @ down * scale``.

    Attributes:
        down: [rank, in] for a linear layer, [rank, in, kernel, kernel] for a convolution.
        up: [out, rank] or [out, rank, 1, 1].
        scale: alpha / rank, as the file says; 1 where it says nothing.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Inner size of the product."""
        return self.down.shape[0]


@dataclass(frozen=True)
class LoraFactors:
    """A whole LoRA: component (``unet``, ``text_encoder`` …) to layer name to factor."""

    components: Mapping[str, Mapping[str, Factor]]

    def of(self, component: str) -> Mapping[str, Factor]:
        """Return the factors of one component; empty if the LoRA leaves it alone."""
        return self.components.get(component, {})

    @property
    def num_bytes(self) -> int:
        """Memory of all factors."""
        return sum(
            tensor.numel() * tensor.element_size()
            for factors in self.components.values()
            for factor in factors.values()
            for tensor in (factor.down, factor.up)
        )
