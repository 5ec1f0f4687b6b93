"""The LoRA bank: several LoRAs in one forward pass, every lane with weights of its own.

All LoRAs of a batch are packed per layer as rank-concatenated factors, and a layer computes

    base(x) + up_cat((down_cat x) * W[lane])

where W holds one weight per lane and LoRA. Merge is a dense row of W, a single LoRA a one-hot row,
the base model a row of zeros, Switch a row that changes with the step: no adapter is ever switched
on or off, so nothing global can be left behind.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clora_core.lora.factors import Factor, LoraFactors


class _PackedLayer:
    """The factors of all LoRAs on one layer."""

    def __init__(self, module: nn.Module, factors: Sequence[tuple[int, Factor]]) -> None:
        weight: Float[Tensor, "out in *kernel"] = module.weight  # type: ignore[assignment]
        self.module = module
        self.is_conv = isinstance(module, nn.Conv2d)
        downs = [_shaped(factor.down, module).to(weight) for _, factor in factors]
        ups = [_shaped(factor.up, module).to(weight) * factor.scale for _, factor in factors]
        self.down = torch.cat(downs)  # [sum of ranks, in, *kernel]
        self.up = torch.cat(ups, dim=1)  # [out, sum of ranks, *1x1]
        columns = [index for index, factor in factors for _ in range(factor.rank)]
        self.columns = torch.tensor(columns, device=weight.device)

    def delta(
        self, x: Float[Tensor, "lane ..."], weights: Float[Tensor, "lane lora"]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the LoRAs add to the layer's output for input ``x``."""
        by_rank = weights[:, self.columns]  # [lane, rank]
        if self.is_conv:
            conv: Any = self.module
            hidden = functional.conv2d(x, self.down, None, conv.stride, conv.padding, conv.dilation)
            return functional.conv2d(hidden * by_rank[:, :, None, None], self.up)
        shape = (len(by_rank), *(1,) * (x.ndim - 2), -1)
        by_rank = by_rank.view(shape)  # [lane, 1, ..., rank]
        return functional.linear(functional.linear(x, self.down) * by_rank, self.up)


class LoraBank:
    """LoRAs packed for one model component.

    Args:
        component: The module whose layers they change.
        loras: For each LoRA its factors by layer name, or nothing where it has none here.
    """

    def __init__(self, component: nn.Module, loras: Sequence[LoraFactors], name: str) -> None:
        by_layer: dict[str, list[tuple[int, Factor]]] = {}
        for index, lora in enumerate(loras):
            for layer, factor in lora.of(name).items():
                by_layer.setdefault(layer, []).append((index, factor))
        self._num_loras = len(loras)
        self._layers = [
            _PackedLayer(component.get_submodule(layer), factors)
            for layer, factors in by_layer.items()
        ]
        self._weights: Float[Tensor, "lane lora"] | None = None

    @property
    def num_layers(self) -> int:
        """Layers that at least one LoRA changes."""
        return len(self._layers)

    def use(self, weights: Float[Tensor, "lane lora"]) -> None:
        """Set the weights of the next passes; their batch must hold these lanes, in this order."""
        if weights.shape[1] != self._num_loras:
            raise ValueError(f"{weights.shape[1]} weights a lane for {self._num_loras} LoRAs")
        self._weights = weights

    @contextmanager
    def attached(self) -> Generator[None]:
        """Apply the bank inside the block; outside the component is as it was before."""
        handles = [layer.module.register_forward_hook(self._hook(layer)) for layer in self._layers]
        try:
            yield
        finally:
            self._weights = None
            for handle in handles:
                handle.remove()

    def _hook(self, layer: _PackedLayer) -> Any:
        def add_delta(
            _module: nn.Module, args: tuple[Any, ...], output: Float[Tensor, "lane ..."]
        ) -> Float[Tensor, "lane ..."]:
            if self._weights is None:
                raise RuntimeError("LoraBank.use() was not called before the pass")
            x: Float[Tensor, "lane ..."] = args[0]
            if len(x) != len(self._weights):
                raise RuntimeError(f"a pass of {len(x)} lanes with weights of {len(self._weights)}")
            return output + layer.delta(x, self._weights.to(x.dtype))

        return add_delta


def _shaped(
    factor: Float[Tensor, "rows columns ..."], module: nn.Module
) -> Float[Tensor, "rows ..."]:
    """Bring a factor to the layer's kind: files write 1x1 convolutions either way."""
    if isinstance(module, nn.Conv2d):
        return factor if factor.ndim == 4 else factor[:, :, None, None]
    return factor.flatten(start_dim=1)
