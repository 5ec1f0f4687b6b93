"""What every kind of update is to the bank: some low-rank factors, and terms of other shapes.

An update is what a file holds, of one layer, independent of any base model. Applied to a layer of a
model it is a sum: a product of two factors, which the bank packs with those of other adapters, and
terms that are evaluated one by one. All of it is linear in the adapter's weight.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@runtime_checkable
class Term(Protocol):
    """One summand of what an adapter of weight 1 adds to a layer's output."""

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what is added, from the layer's input and from its output without adapters."""
        ...

    def matrix(self) -> Float[Tensor, "out in_kernel"] | None:
        """Return the difference of the layer's weight that it stands for; None for a bias's."""
        ...


@dataclass(frozen=True, eq=False)
class LowRank:
    """Two factors as the bank packs them, in the layer's own form; the scale is in ``up``."""

    down: Float[Tensor, "rank in *kernel"]
    up: Float[Tensor, "out rank *one"]

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the product."""
        return self.up.flatten(start_dim=1) @ self.down.flatten(start_dim=1)


@dataclass(frozen=True, eq=False)
class Applied:
    """An update of one layer of a base model.

    Attributes:
        low_rank: The factors, if it has any.
        terms: What else is added.
        rank: What the adapter counts by where adapters are compared; the smaller side of the
            weight where it has no lower one.
    """

    low_rank: LowRank | None
    terms: tuple[Term, ...]
    rank: int

    def matrix(self) -> Float[Tensor, "out in_kernel"] | None:
        """Return the whole difference of the layer's weight; None where only a bias changes."""
        parts = [] if self.low_rank is None else [self.low_rank.matrix()]
        parts += [found for term in self.terms if (found := term.matrix()) is not None]
        return torch.stack(parts).sum(dim=0) if parts else None


@runtime_checkable
class Update(Protocol):
    """What an adapter's file holds of one layer."""

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        ...

    def to(self, device: torch.device) -> "Update":
        """Return the update on ``device``, in the numbers that it has."""
        ...

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``.

        Args:
            module: The layer of the base model.
            dtype: In which the products are made and added.
        """
        ...


def weight_of(module: nn.Module) -> Float[Tensor, "out ..."]:
    """Return the layer's weight, of which nothing is trained."""
    weight: Float[Tensor, "out ..."] = module.weight.detach()  # type: ignore[assignment,union-attr,operator]
    return weight


def full_rank(module: nn.Module) -> int:
    """Return the most ranks that a difference of the layer's weight can have."""
    weight = weight_of(module)
    return min(len(weight), weight[0].numel())


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision in which differences of weights are made: single or better."""
    return torch.promote_types(dtype, torch.float32)


def linear_map(
    x: Float[Tensor, "lane ..."], weight: Float[Tensor, "out in *kernel"], module: nn.Module
) -> Float[Tensor, "lane ..."]:
    """Return what the layer ``module`` would make of ``x`` with another weight and no bias."""
    if isinstance(module, nn.Conv2d):
        return functional.conv2d(
            x, weight, None, module.stride, module.padding, module.dilation, module.groups
        )
    return functional.linear(x, weight)


def along_channels(
    values: Float[Tensor, " channel"], like: Float[Tensor, "lane ..."], module: nn.Module
) -> Float[Tensor, "..."]:
    """Return values of channels so that they multiply or add to a layer's input or output."""
    has_maps = isinstance(module, nn.Conv2d | nn.GroupNorm)
    return values.view(-1, *(1,) * (like.ndim - 2)) if has_maps else values


def num_bytes(*tensors: Float[Tensor, "..."] | None) -> int:
    """Return the memory of some tensors."""
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)
