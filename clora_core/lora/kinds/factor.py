"""LoRA: a product of two factors, of a linear layer or a convolution (arXiv 2106.09685)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.update import Applied, LowRank, num_bytes


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

    @property
    def num_bytes(self) -> int:
        """Memory of both factors."""
        return num_bytes(self.down, self.up)

    def to(self, device: torch.device) -> "Factor":
        """Return the factor on ``device``, in the numbers that it has."""
        return Factor(self.down.to(device), self.up.to(device), self.scale)

    def fitted(self, module: nn.Module) -> "Factor":
        """Return it in the layer's own form: files write 1x1 convolutions either way."""
        return Factor(_shaped(self.down, module), _shaped(self.up, module), self.scale)

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        own = self.fitted(module)
        return Applied(LowRank(own.down.to(dtype), own.up.to(dtype) * self.scale), (), self.rank)


def _shaped(
    factor: Float[Tensor, "rows columns ..."], module: nn.Module
) -> Float[Tensor, "rows ..."]:
    if isinstance(module, nn.Conv2d):
        return factor if factor.ndim == 4 else factor[:, :, None, None]
    return factor.flatten(start_dim=1)
