"""GLoRA: a LoRA of a layer's inputs, seen through its weight, beside one of its weight.

The difference is scale * (W A + B) with A = a1 a2 on the input channels and B = b1 b2
(arXiv 2306.07967, as LyCORIS trains it). Without a kernel W a1 is a factor like any other, so the
whole is a product of two factors of twice the rank, made of the layer that it is applied to.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.difference import WeightTerm
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.update import Applied, LowRank, num_bytes, weight_of, wide


@dataclass(frozen=True, eq=False)
class Generalized:
    """One layer's delta.

    Attributes:
        a1: To the layer's input channels.
        a2: From them.
        b: The other LoRA, with the scale of both.
    """

    a1: Float[Tensor, "in rank"]
    a2: Float[Tensor, "rank in"]
    b: Factor

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return num_bytes(self.a1, self.a2) + self.b.num_bytes

    def to(self, device: torch.device) -> "Generalized":
        """Return the update on ``device``."""
        return Generalized(self.a1.to(device), self.a2.to(device), self.b.to(device))

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        weight = weight_of(module).to(wide(dtype))
        a1, a2 = self.a1.to(weight.dtype), self.a2.to(weight.dtype)
        through = torch.einsum("oi...,ir->or...", weight, a1) * self.b.scale
        own = self.b.applied(module, dtype)
        rank = len(a2) + self.b.rank
        if own.low_rank is None:
            raise TypeError("a product of two factors without factors")
        up, down = own.low_rank.up, own.low_rank.down
        if weight[0, 0].numel() > 1:
            difference = torch.einsum("or...,ri->oi...", through, a2).to(dtype)
            return Applied(own.low_rank, (WeightTerm(difference, module),), rank)
        before = a2.reshape(len(a2), *weight.shape[1:]).to(dtype)
        ups, downs = torch.cat([up, through.to(dtype)], dim=1), torch.cat([down, before])
        return Applied(LowRank(downs, ups), (), rank)
