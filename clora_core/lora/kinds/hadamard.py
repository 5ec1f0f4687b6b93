"""LoHa: two low-rank products multiplied entry by entry (FedPara, arXiv 2108.06098; LyCORIS).

The result has low rank, too: its factor to the output is the row-wise Kronecker product of both
factors to the output, and that from the input the column-wise one of both from the input, so the
rank is the product of both ranks. With Tucker cores the same holds at each place of the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.difference import WeightTerm
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.update import Applied, full_rank, num_bytes, weight_of, wide
from clora_core.recipe.lora.held import factors_are_smaller


@dataclass(frozen=True, eq=False)
class HadamardHalf:
    """One of the two products: up @ down, or with a core up @ core @ down at each place."""

    up: Float[Tensor, "out rank"]
    down: Float[Tensor, "rank in_kernel"]
    core: Float[Tensor, "up_rank rank *kernel"] | None

    def with_kernel(self, kernel: Sequence[int]) -> Float[Tensor, "rank in *kernel"]:
        """Return the factor from the input, with the kernel's sides and the core within it."""
        if self.core is None:
            return self.down.reshape(len(self.down), -1, *kernel)
        return torch.einsum("ij...,jr->ir...", self.core, self.down)

    def matrix(self, kernel: Sequence[int]) -> Float[Tensor, "out in_kernel"]:
        """Return the product."""
        return self.up @ self.with_kernel(kernel).flatten(start_dim=1)

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return num_bytes(self.up, self.down, self.core)

    def to(self, where: torch.device | torch.dtype) -> "HadamardHalf":
        """Return the half on a device, or in other numbers."""
        core = None if self.core is None else self.core.to(where)
        return HadamardHalf(self.up.to(where), self.down.to(where), core)


@dataclass(frozen=True, eq=False)
class Hadamard:
    """The product of two halves whose ranks are too many for factors.

    The halves are a small part of the whole difference, which is made where a batch is packed.
    """

    first: HadamardHalf
    second: HadamardHalf
    scale: float

    @property
    def num_bytes(self) -> int:
        """Memory of both halves."""
        return self.first.num_bytes + self.second.num_bytes

    def to(self, device: torch.device) -> "Hadamard":
        """Return the update on ``device``."""
        return Hadamard(self.first.to(device), self.second.to(device), self.scale)

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        weight = weight_of(module)
        one, other = (
            half.to(wide(dtype)).matrix(weight.shape[2:]) for half in (self.first, self.second)
        )
        whole = (one * other * self.scale).reshape(weight.shape).to(dtype)
        return Applied(None, (WeightTerm(whole, module),), full_rank(module))


def hadamard(
    first: HadamardHalf, second: HadamardHalf, weight: Sequence[int], scale: float
) -> Factor | Hadamard:
    """Return the update, as factors where these are smaller than the whole difference.

    Args:
        first: One half.
        second: The other.
        weight: Shape of the layer's weight.
        scale: Alpha over rank.
    """
    kernel = weight[2:]
    rank = first.up.shape[1] * second.up.shape[1]
    if not factors_are_smaller(rank, prod(weight[1:]), weight[0]):
        return Hadamard(first, second, scale)
    downs = [half.with_kernel(kernel) for half in (first, second)]
    up = torch.einsum("or,os->ors", first.up, second.up).flatten(start_dim=1)
    down = torch.einsum("r...,s...->rs...", downs[0], downs[1]).flatten(end_dim=1)
    return Factor(down.contiguous(), up.reshape(*up.shape, *(1,) * len(kernel)), scale)
