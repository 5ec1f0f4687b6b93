"""LoHa: two low-rank products multiplied entry by entry (FedPara, arXiv 2108.06098; LyCORIS).

The result has low rank, too: its factor to the output is the row-wise Kronecker product of both
factors to the output, and that from the input the column-wise one of both from the input, so the
rank is the product of both ranks. With Tucker cores the same holds at each place of the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.lora.kinds.difference import Difference
from clora_core.lora.kinds.factor import Factor
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


def hadamard(
    first: HadamardHalf, second: HadamardHalf, weight: Sequence[int], scale: float
) -> Factor | Difference:
    """Return the update, as factors where these are smaller than the whole difference.

    Args:
        first: One half.
        second: The other.
        weight: Shape of the layer's weight.
        scale: Alpha over rank.
    """
    kernel = weight[2:]
    downs = [half.with_kernel(kernel) for half in (first, second)]
    rank = first.up.shape[1] * second.up.shape[1]
    num_inputs = downs[0][0].numel()
    if factors_are_smaller(rank, num_inputs, weight[0]):
        up = torch.einsum("or,os->ors", first.up, second.up).flatten(start_dim=1)
        down = torch.einsum("r...,s...->rs...", downs[0], downs[1]).flatten(end_dim=1)
        return Factor(down.contiguous(), up.reshape(*up.shape, *(1,) * len(kernel)), scale)
    one, other = (
        half.up @ down.flatten(start_dim=1)
        for half, down in zip((first, second), downs, strict=True)
    )
    return Difference((one * other * scale).reshape(tuple(weight)), None)
