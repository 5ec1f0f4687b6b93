"""Whole differences: of a weight, of a bias, and of a norm's scale and shift."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clora_core.lora.kinds.update import (
    Applied,
    Term,
    along_channels,
    full_rank,
    linear_map,
    num_bytes,
    weight_of,
)


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of a weight, a bias, or both; never scaled."""

    weight: Float[Tensor, "out ..."] | None
    bias: Float[Tensor, " out"] | None

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return num_bytes(self.weight, self.bias)

    def to(self, device: torch.device) -> "Difference":
        """Return the update on ``device``."""
        weight = None if self.weight is None else self.weight.to(device)
        return Difference(weight, None if self.bias is None else self.bias.to(device))

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        terms: list[Term] = []
        if self.weight is not None:
            values = self.weight.to(dtype)
            own = weight_of(module)
            if own.ndim == 1:
                terms.append(NormTerm(values, module))
            else:
                terms.append(WeightTerm(values.reshape(own.shape), module))
        if self.bias is not None:
            terms.append(BiasTerm(self.bias.to(dtype), module))
        return Applied(None, tuple(terms), full_rank(module))


@dataclass(frozen=True, eq=False)
class WeightTerm:
    """The difference of a whole weight."""

    values: Float[Tensor, "out in *kernel"]
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the difference alone makes of ``x``."""
        del output
        return linear_map(x, self.values, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the difference."""
        return self.values.flatten(start_dim=1)


@dataclass(frozen=True, eq=False)
class BiasTerm:
    """The difference of a bias."""

    values: Float[Tensor, " out"]
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the bias at every position of ``output``."""
        del x
        return along_channels(self.values, output, self.module).expand_as(output)

    def matrix(self) -> None:
        """Return nothing: the weight stays."""
        return


@dataclass(frozen=True, eq=False)
class NormTerm:
    """The difference of a norm's scale."""

    values: Float[Tensor, " channel"]
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the normed input, scaled by the difference."""
        del output
        module = self.module
        if isinstance(module, nn.GroupNorm):
            return functional.group_norm(x, module.num_groups, self.values, None, module.eps)
        if isinstance(module, nn.LayerNorm):
            return functional.layer_norm(x, module.normalized_shape, self.values, None, module.eps)
        raise TypeError(f"no norm whose scale can change: {type(module).__name__}")

    def matrix(self) -> None:
        """Return nothing: a norm has no weight of two sides."""
        return
