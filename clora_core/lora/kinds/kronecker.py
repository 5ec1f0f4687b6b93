"""LoKr: the Kronecker product of two small matrices, never made whole (LyCORIS, "LoKr").

With the input's channels as a table of c rows and d columns, the product of w1 [a, c] and
w2 [b, d, ...] is w2 on every row and then w1 across the rows. It costs 1/a + 1/d of the layer
itself, where w2 is whole.
"""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.update import Applied, linear_map, num_bytes, weight_of, wide


@dataclass(frozen=True, eq=False)
class Kronecker:
    """scale * (w1 (x) w2), the rank of both as far as their factors say it."""

    w1: Float[Tensor, "a c"]
    w2: Float[Tensor, "b d *kernel"]
    scale: float
    rank: int | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return num_bytes(self.w1, self.w2)

    def to(self, device: torch.device) -> "Kronecker":
        """Return the update on ``device``."""
        return Kronecker(self.w1.to(device), self.w2.to(device), self.scale, self.rank)

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        weight = weight_of(module)
        kernel = weight.shape[2:]
        w1 = (self.w1.to(wide(dtype)) * self.scale).to(dtype)
        w2 = self.w2.to(dtype)
        sides = (w2.shape[0], w2[0].numel() // prod(kernel))
        term = KroneckerTerm(w1, w2.reshape(*sides, *kernel), module)
        smaller = min(w1.shape) * min(w2.flatten(start_dim=1).shape)
        return Applied(None, (term,), smaller if self.rank is None else self.rank)


@dataclass(frozen=True, eq=False)
class KroneckerTerm:
    """A Kronecker product; the scale is in ``w1``."""

    w1: Float[Tensor, "a c"]
    w2: Float[Tensor, "b d *kernel"]
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the product with ``x``."""
        del output
        rows = self.w1.shape[1]
        if isinstance(self.module, nn.Conv2d):
            table = x.unflatten(1, (rows, -1)).flatten(end_dim=1)  # [lane * c, d, height, width]
            inner = linear_map(table, self.w2, self.module)  # [lane * c, b, height, width]
            across = self.w1 @ inner.reshape(len(x), rows, -1)  # [lane, a, b * height * width]
            return across.reshape(len(x), -1, *inner.shape[2:])
        inner = linear_map(x.unflatten(-1, (rows, -1)), self.w2, self.module)  # [..., c, b]
        return (self.w1 @ inner).flatten(start_dim=-2)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the product itself."""
        kernel = (1,) * (self.w2.ndim - 2)
        return torch.kron(self.w1.view(*self.w1.shape, *kernel), self.w2).flatten(start_dim=1)
