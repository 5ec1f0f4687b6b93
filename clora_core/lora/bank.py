"""The LoRA bank: several LoRAs in one forward pass, every lane with weights of its own.

What LoRAs have of low rank is packed per layer as rank-concatenated factors, and what other kinds
of adapter add comes as terms of their own, on the lanes that have them. A layer computes

    base(x) + up_cat((down_cat x) * W[lane]) + sum of term(x, base(x)) * W[lane]

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
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clora_core.lora.factors import LoraFactors
from clora_core.lora.gate import Gate
from clora_core.lora.kinds.update import LowRank, Update, linear_map, weight_of, wide
from clora_core.lora.layer_weights import LayerWeights


class _PackedLayer:
    """What all LoRAs do to one layer."""

    def __init__(self, name: str, module: nn.Module, updates: Sequence[tuple[int, Update]]) -> None:
        self.name = name
        self.module = module
        self.is_in_transformer = ".transformer_blocks." in name
        self.has_maps = isinstance(module, nn.Conv2d | nn.GroupNorm)
        weight = weight_of(module)
        applied = [
            (index, update.to(weight.device).applied(module, weight.dtype))
            for index, update in updates
        ]
        factors = [(index, each.low_rank) for index, each in applied if each.low_rank is not None]
        self.factors = _PackedFactors(factors, module) if factors else None
        self.terms = [(index, term) for index, each in applied for term in each.terms]
        self._updates = dict(updates)

    def add(
        self,
        x: Float[Tensor, "lane ..."],
        output: Float[Tensor, "lane ..."],
        weights: Float[Tensor, "lane lora"] | Gate | LayerWeights,
        lanes_of: Sequence[Int[Tensor, " _"] | None],
    ) -> Float[Tensor, "lane ..."]:
        """Return the layer's output with what the LoRAs add to it for input ``x``.

        Args:
            x: The layer's input.
            output: Its output without LoRAs.
            weights: Of the lanes.
            lanes_of: Lanes in which each LoRA's weight is not 0 all over; None for all of them.
        """
        if isinstance(weights, LayerWeights):
            weights = weights.of(self.name)
        total = output
        if self.factors is not None:
            hidden = self.factors.hidden(x)
            by_rank = self._at(weights, hidden, self.factors.columns)
            total = total + self.factors.output(hidden * by_rank)
        for index, term in self.terms:
            lanes = lanes_of[index]
            if lanes is not None and not len(lanes):
                continue
            by = self._at(weights, output, index)
            if total is output:  # which terms still read
                total = output.clone()
            if lanes is None:
                total.addcmul_(term.delta(x, output), by)
            else:
                total.index_add_(0, lanes, term.delta(x[lanes], output[lanes]) * by[lanes])
        return total

    def delta(self, lora: int) -> "LayerDelta | None":
        """Return what one LoRA adds to the layer's weight; None where it adds nothing to it."""
        if lora not in self._updates:
            return None
        weight = weight_of(self.module)
        applied = self._updates[lora].to(weight.device).applied(self.module, wide(weight.dtype))
        matrix = applied.matrix()
        return None if matrix is None else LayerDelta(matrix, applied.rank)

    def _at(
        self,
        weights: Float[Tensor, "lane lora"] | Gate,
        like: Float[Tensor, "lane ..."],
        loras: Int[Tensor, " rank"] | int,
    ) -> Float[Tensor, "lane ..."]:
        """Return weights as they multiply ``like``: one for each lane and position.

        Args:
            weights: Of the lanes.
            like: Hidden values, a channel for each of ``loras``; or values of one LoRA.
            loras: Of each channel, or of all of them.
        """
        columns = loras if isinstance(loras, Tensor) else slice(loras, loras + 1)
        if isinstance(weights, Gate):
            if weights.elsewhere is not None and not self.is_in_transformer:
                weights = weights.elsewhere
            elif like.ndim == 2:
                weights = weights.mean_weights
            else:
                return self._gated(weights, like, columns)
        by_rank = weights.to(like.dtype)[:, columns]  # [lane, rank]
        if self.has_maps:
            return by_rank.view(*by_rank.shape, *(1,) * (like.ndim - 2))
        return by_rank.view(len(by_rank), *(1,) * (like.ndim - 2), -1)  # [lane, 1, ..., rank]

    def _gated(
        self, gate: Gate, like: Float[Tensor, "lane ..."], columns: Int[Tensor, " rank"] | slice
    ) -> Float[Tensor, "lane ..."]:
        if like.ndim == 4:  # gated where its output is
            return gate.weights_at(*like.shape[2:]).to(like.dtype)[:, columns]
        # A norm may see an image's positions in a row, channels before them.
        num_positions = like.shape[2] if self.has_maps else like.shape[1]
        by_lora = gate.weights_at(*gate.size_of(num_positions)).to(like.dtype)
        flat = by_lora.flatten(start_dim=2)[:, columns]  # [lane, rank, position]
        return flat if self.has_maps else flat.mT


class _PackedFactors:
    """The factors of all LoRAs on one layer, side by side."""

    def __init__(self, factors: Sequence[tuple[int, LowRank]], module: nn.Module) -> None:
        self.module = module
        self.down = torch.cat([factor.down for _, factor in factors])  # [ranks, in, *kernel]
        self.up = torch.cat([factor.up for _, factor in factors], dim=1)  # [out, ranks, *1x1]
        columns = [index for index, factor in factors for _ in range(len(factor.down))]
        self.columns = torch.tensor(columns, device=self.down.device)

    def hidden(self, x: Float[Tensor, "lane ..."]) -> Float[Tensor, "lane ..."]:
        """Return what the factors from the input make of ``x``."""
        return linear_map(x, self.down, self.module)

    def output(self, hidden: Float[Tensor, "lane ..."]) -> Float[Tensor, "lane ..."]:
        """Return what the factors to the output make of that."""
        is_conv = isinstance(self.module, nn.Conv2d)
        return functional.conv2d(hidden, self.up) if is_conv else functional.linear(hidden, self.up)


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
        by_layer: dict[str, list[tuple[int, Update]]] = {}
        for index, lora in enumerate(loras):
            for layer, update in lora.of(name).items():
                by_layer.setdefault(layer, []).append((index, update))
        self._num_loras = len(loras)
        self._layers = [
            _PackedLayer(layer, component.get_submodule(layer), updates)
            for layer, updates in by_layer.items()
        ]
        self._has_terms = any(layer.terms for layer in self._layers)
        self._weights: Float[Tensor, "lane lora"] | Gate | LayerWeights | None = None
        self._lanes_of: Sequence[Int[Tensor, " _"] | None] = ()

    @property
    def num_layers(self) -> int:
        """Layers that at least one LoRA changes."""
        return len(self._layers)

    def deltas(self, *loras: int) -> Iterator[tuple[str, tuple[LayerDelta, ...]]]:
        """Yield, layer by layer, what each of ``loras`` adds to a weight that all of them change.

        The products are made as they are asked for: all at once would be another component.
        """
        for layer in self._layers:
            deltas = [layer.delta(lora) for lora in loras]
            found = tuple(delta for delta in deltas if delta is not None)
            if len(found) == len(loras):
                yield layer.name, found

    def use(self, weights: Float[Tensor, "lane lora"] | Gate | LayerWeights) -> None:
        """Set the weights of the next passes; their batch must hold these lanes, in this order.

        A gate is for passes over images: layers that read a text have no positions of an image.
        """
        given = weights.weights if isinstance(weights, Gate | LayerWeights) else weights
        if given.shape[-1] != self._num_loras:
            raise ValueError(f"{given.shape[-1]} weights a lane for {self._num_loras} LoRAs")
        self._weights = weights
        if self._has_terms:
            self._lanes_of = _lanes_of(weights)

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
            return layer.add(x, output, self._weights, self._lanes_of)

        return add_delta


def _lanes_of(
    weights: Float[Tensor, "lane lora"] | Gate | LayerWeights,
) -> list[Int[Tensor, " _"] | None]:
    """Return for each LoRA the lanes in which it has a weight anywhere; None where all have."""
    if isinstance(weights, Gate):
        given = [weights.weights] + (
            [] if weights.elsewhere is None else [weights.elsewhere[:, None]]
        )
    elif isinstance(weights, LayerWeights):
        given = [weights.weights, weights.elsewhere[:, None]]
    else:
        given = [weights[:, None]]
    used = torch.cat([(each != 0).any(dim=1, keepdim=True) for each in given], dim=1).any(dim=1)
    return [
        None if all(lanes) else torch.tensor(lanes, device=used.device).nonzero().flatten()
        for lanes in used.mT.tolist()
    ]
