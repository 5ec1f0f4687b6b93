"""The LoRA bank: several LoRAs in one forward pass, every lane with weights of its own.

All LoRAs of a batch are packed per layer as rank-concatenated factors, and a layer computes

    base(x) + up_cat((down_cat x) * W[lane])

where W holds one weight per lane and LoRA. Merge is a dense row of W, a single LoRA a one-hot row,
the base model a row of zeros, Switch a row that changes with the step: no adapter is ever switched
on or off, so nothing global can be left behind.

A ``Gate`` in place of W makes the weight depend on the position too, so that one lane holds several
LoRAs, each in its own place. Its parts work by LoRA; a layer spreads them over the ranks.
``LayerWeights`` in place of W have a W for each layer.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from clora_core.lora.factors import Factor, LoraFactors
from clora_core.lora.gate import Gate
from clora_core.lora.layer_weights import LayerWeights


class _PackedLayer:
    """The factors of all LoRAs on one layer."""

    def __init__(self, name: str, module: nn.Module, factors: Sequence[tuple[int, Factor]]) -> None:
        self.name = name
        self.is_in_transformer = ".transformer_blocks." in name
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
        self,
        x: Float[Tensor, "lane ..."],
        weights: Float[Tensor, "lane lora"] | Gate | LayerWeights,
    ) -> Float[Tensor, "lane ..."]:
        """Return what the LoRAs add to the layer's output for input ``x``."""
        if isinstance(weights, LayerWeights):
            weights = weights.of(self.name)
        if self.is_conv:
            conv: Any = self.module
            hidden = functional.conv2d(x, self.down, None, conv.stride, conv.padding, conv.dilation)
            by_rank = self._by_rank(weights, hidden)  # [lane, rank, height | 1, width | 1]
            return functional.conv2d(hidden * by_rank, self.up)
        hidden = functional.linear(x, self.down)
        return functional.linear(hidden * self._by_rank(weights, hidden), self.up)

    def product(self, columns: Bool[Tensor, " rank"]) -> "LayerDelta":
        """Return the product of the factors in some ranks."""
        wide = torch.promote_types(self.up.dtype, torch.float32)
        up = self.up.flatten(start_dim=1)[:, columns].to(wide)
        down = self.down[columns].flatten(start_dim=1).to(wide)
        return LayerDelta(up @ down, len(down))

    def _by_rank(
        self, weights: Float[Tensor, "lane lora"] | Gate, hidden: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the weights as they multiply ``hidden``: one for each lane, rank and position."""
        if isinstance(weights, Gate):
            if weights.elsewhere is not None and not self.is_in_transformer:
                weights = weights.elsewhere
            elif hidden.ndim == 2:
                weights = weights.mean_weights
            else:
                return self._gated(weights, hidden)
        by_rank = weights.to(hidden.dtype)[:, self.columns]  # [lane, rank]
        if self.is_conv:
            return by_rank[:, :, None, None]
        return by_rank.view(len(by_rank), *(1,) * (hidden.ndim - 2), -1)  # [lane, 1, ..., rank]

    def _gated(self, gate: Gate, hidden: Float[Tensor, "lane ..."]) -> Float[Tensor, "lane ..."]:
        if self.is_conv:  # gated where its output is
            height, width = hidden.shape[2:]
            return gate.weights_at(height, width).to(hidden.dtype)[:, self.columns]
        by_lora = gate.weights_at(*gate.size_of(hidden.shape[1])).to(hidden.dtype)
        return by_lora.flatten(start_dim=2).mT[:, :, self.columns]  # [lane, position, rank]


class LayerDelta(NamedTuple):
    """What a LoRA of weight 1 adds to one layer's weights, in single precision or better."""

    values: Float[Tensor, "out in_kernel"]
    rank: int


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
            _PackedLayer(layer, component.get_submodule(layer), factors)
            for layer, factors in by_layer.items()
        ]
        self._weights: Float[Tensor, "lane lora"] | Gate | LayerWeights | None = None

    @property
    def num_layers(self) -> int:
        """Layers that at least one LoRA changes."""
        return len(self._layers)

    def deltas(self, *loras: int) -> Iterator[tuple[str, tuple[LayerDelta, ...]]]:
        """Yield, layer by layer, what each of ``loras`` adds to a weight that all of them change.

        The products are made as they are asked for: all at once would be another component.
        """
        for layer in self._layers:
            ranks = [layer.columns == lora for lora in loras]
            if all(bool(columns.any()) for columns in ranks):
                yield layer.name, tuple(layer.product(columns) for columns in ranks)

    def use(self, weights: Float[Tensor, "lane lora"] | Gate | LayerWeights) -> None:
        """Set the weights of the next passes; their batch must hold these lanes, in this order.

        A gate is for passes over images: layers that read a text have no positions of an image.
        """
        given = weights.weights if isinstance(weights, Gate | LayerWeights) else weights
        if given.shape[-1] != self._num_loras:
            raise ValueError(f"{given.shape[-1]} weights a lane for {self._num_loras} LoRAs")
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
            return output + layer.delta(x, self._weights)

        return add_delta


def _shaped(
    factor: Float[Tensor, "rows columns ..."], module: nn.Module
) -> Float[Tensor, "rows ..."]:
    """Bring a factor to the layer's kind: files write 1x1 convolutions either way."""
    if isinstance(module, nn.Conv2d):
        return factor if factor.ndim == 4 else factor[:, :, None, None]
    return factor.flatten(start_dim=1)
