"""Several updates of one layer, such as a LoRA and a trained bias."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from clora_core.lora.kinds.update import Applied, Update


@dataclass(frozen=True, eq=False)
class Together:
    """Several updates of one layer."""

    updates: tuple[Update, ...]

    @property
    def num_bytes(self) -> int:
        """Memory of all."""
        return sum(each.num_bytes for each in self.updates)

    def to(self, device: torch.device) -> "Together":
        """Return the updates on ``device``."""
        return Together(tuple(each.to(device) for each in self.updates))

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return the sum of what they add to ``module``; the first is of low rank, if one is."""
        first, *others = (each.applied(module, dtype) for each in self.updates)
        return replace(first, terms=(*first.terms, *(t for each in others for t in each.terms)))
