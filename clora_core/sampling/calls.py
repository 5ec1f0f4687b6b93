"""What the UNet is given in one call: some lanes, each with its text and LoRA weights.

Either every variant of a row is a lane of its own, or a gated row's variants are the parts of one
lane. Lanes are in the order half, row, variant, so a chunk of them is a slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from clora_core.diffusion.conditions import Conditions
from clora_core.lora.gate import Gate
from clora_core.lora.layer_weights import LayerWeights
from clora_core.sampling.lanes import Half, LaneBatch


@dataclass(frozen=True)
class PassInputs:
    """What a pass starts from.

    Attributes:
        latents: Every row's latents as the model sees them (scaled by the solver).
        t: Timestep.
        weights: LoRA weights of every variant.
        masks: Of a gated batch, each variant's share of every position, which add up to 1.
    """

    latents: Float[Tensor, "row channel height width"]
    t: Num[Tensor, ""]
    weights: Float[Tensor, "row_variant lora"] | LayerWeights
    masks: Float[Tensor, "row variant height width"] | None = None


@dataclass(frozen=True)
class Call:
    """Some lanes of a pass.

    Attributes:
        latents: Latents of every lane.
        conditions: What each lane shows.
        weights: Its LoRA weights, or its gate.
        contexts: Of gated lanes, their places among the batch's texts; None for plain lanes.
    """

    latents: Float[Tensor, "lane channel height width"]
    conditions: Conditions
    weights: Float[Tensor, "lane lora"] | Gate | LayerWeights
    contexts: Int[Tensor, " lane"] | None = None

    def __getitem__(self, lanes: slice) -> "Call":
        contexts = None if self.contexts is None else self.contexts[lanes]
        return Call(self.latents[lanes], self.conditions[lanes], self.weights[lanes], contexts)


def call_of_all(lanes: LaneBatch, inputs: PassInputs, halves: Sequence[Half]) -> Call:
    """Return all lanes of ``halves`` as one call."""
    if inputs.masks is not None:
        return _gated(lanes, inputs, inputs.masks, halves)
    by_row = inputs.latents.repeat_interleave(lanes.kind.num_variants, dim=0)
    weights = inputs.weights
    return Call(
        by_row.repeat(len(halves), 1, 1, 1),
        Conditions.join([lanes.conditions[half] for half in halves]),
        weights.repeat(len(halves))
        if isinstance(weights, LayerWeights)
        else weights.repeat(len(halves), 1),  # [half*row*variant, lora]
    )


def _gated(
    lanes: LaneBatch,
    inputs: PassInputs,
    masks: Float[Tensor, "row variant height width"],
    halves: Sequence[Half],
) -> Call:
    if isinstance(inputs.weights, LayerWeights):
        raise TypeError("a gated lane takes its LoRAs by position, not by layer")
    num_rows, num_parts = masks.shape[:2]
    weights = inputs.weights.to(masks.dtype).unflatten(0, (num_rows, num_parts))
    elsewhere = None
    if lanes.gate is not None and lanes.gate.only_attention:
        elsewhere = lanes.context_weights().unflatten(0, (num_rows, num_parts))[:, 0]
        elsewhere = elsewhere.repeat(len(halves), 1)
    gate = Gate(masks.repeat(len(halves), 1, 1, 1), weights.repeat(len(halves), 1, 1), elsewhere)
    texts = Conditions.join([lanes.conditions[half] for half in halves])
    places = [list(lanes.conditions).index(half) for half in halves]
    rows = torch.arange(num_rows, device=masks.device)
    return Call(
        inputs.latents.repeat(len(halves), 1, 1, 1),
        _mixed(texts, gate.shares),
        gate,
        torch.cat([rows + place * num_rows for place in places]),
    )


def _mixed(texts: Conditions, shares: Float[Tensor, "lane part"]) -> Conditions:
    """Return one condition a lane: what has no position is the mean over the image.

    The token embeddings are read from the contexts; here they only have their shape.
    """
    num_parts = shares.shape[1]

    def mean(values: Float[Tensor, "lane_part _"]) -> Float[Tensor, "lane _"]:
        # In the shares' own precision: rounded to half precision they no longer add up to 1, and
        # even what all parts agree on, such as the image's size, could come out changed.
        by_part = values.unflatten(0, (-1, num_parts)).to(shares.dtype)
        return torch.einsum("lp,lpc->lc", shares, by_part).to(values.dtype)

    added = {name: mean(values) for name, values in texts.added.items()}
    return Conditions(texts.text[::num_parts], added)
