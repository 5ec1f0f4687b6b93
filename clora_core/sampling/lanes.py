"""Lanes: the unit of compute. One lane is one prompt variant of one row, for one guidance half.

A batch of rows becomes rows x variants lanes, row by row, each with its text and LoRA weights; the
UNet sees all of them at once. What the loss and the masks need, which token of which variant stands
for which concept, is laid out here as index tensors, padded where rows differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.text import encode
from clora_core.lora.bank import LoraBank
from clora_core.lora.layer_choice import LayerChoice
from clora_core.lora.layer_weights import LayerWeights
from clora_core.recipe.methods import METHODS, GateRecipe, Method, Variant
from clora_core.recipe.prompts.chunks import negative_of
from clora_core.recipe.row import Row
from clora_core.sampling.loss import PADDING
from clora_core.sampling.row_lanes import BatchKind, RowLanes


class Half(StrEnum):
    """A half of classifier-free guidance: with the prompt, or with the negative prompt."""

    UNCONDITIONAL = "unconditional"
    CONDITIONAL = "conditional"


@dataclass(frozen=True)
class LaneBatch:
    """All lanes of some rows of one kind, made by ``lane_batch``.

    Attributes:
        kind: What the rows share.
        rows: Every row's variants.
        conditions: Conditions of every lane in each guidance half; one half where guidance is off.
        map_variants: Variant of each compared map.
        map_tokens: Token of each compared map.
        map_concepts: Concept of each compared map, or ``PADDING``.
        mask_tokens: Tokens each variant's mask is made from, -1 where there are fewer.
        regions: What each variant's mask must respect, 1 inside; all ones without a region. As
            large as the maps, or as the latents for gated rows.
        replaced: Variants whose region is their mask.
        word_bias: What gated rows add to their attention to each word; None for nothing.
        loras: Column of every LoRA digest in the weights.
        layer_choice: What layers choose their LoRA by, where the method has them choose.
    """

    kind: BatchKind
    rows: tuple[RowLanes, ...]
    conditions: Mapping[Half, Conditions]
    map_variants: Int[Tensor, "row map"]
    map_tokens: Int[Tensor, "row map"]
    map_concepts: Int[Tensor, "row map"]
    mask_tokens: Int[Tensor, "row variant slot"]
    regions: Float[Tensor, "row variant region_height region_width"]
    replaced: Bool[Tensor, "row variant"]
    word_bias: Float[Tensor, "row variant token"] | None
    loras: tuple[str, ...]
    layer_choice: LayerChoice | None = None

    @property
    def method(self) -> Method:
        """The method of every row."""
        return METHODS[self.kind.method]

    @property
    def gate(self) -> GateRecipe | None:
        """The rules of gated rows; None where every variant has a lane of its own."""
        return self.method.gate(self.kind.num_variants, self.kind.sampler)

    @property
    def lanes_per_row(self) -> int:
        """Lanes of each row in one guidance half."""
        return self.kind.num_variants if self.gate is None else 1

    @property
    def num_lanes(self) -> int:
        """Lanes of all rows in one guidance half."""
        return len(self.rows) * self.lanes_per_row

    @property
    def map_halves(self) -> tuple[Half, ...]:
        """The guidance halves whose attention maps count."""
        if self.kind.sampler.attention_half == "both":
            return tuple(self.conditions)
        return (Half.CONDITIONAL,)

    @property
    def is_guided(self) -> bool:
        """Whether any step moves the latents."""
        return any(self.num_updates(step) for step in range(self.kind.sampler.num_steps))

    def num_updates(self, step: int) -> int:
        """Return how many latent updates ``step`` makes."""
        num_concepts = len(self.rows[0].row.concepts)
        return self.method.num_updates(step, num_concepts, self.kind.sampler)

    @property
    def variant_weights(self) -> Float[Tensor, "row variant 1 1"] | None:
        """How much each variant's prediction weighs everywhere; None for equally."""
        if not self.method.weighted:
            return None
        weights = torch.tensor([lanes.importance for lanes in self.rows], dtype=torch.float64)
        return weights.to(self.regions)[:, :, None, None]

    def with_layers_of(self, bank: LoraBank) -> "LaneBatch":
        """Return the batch with what its layers choose their LoRA by, if its method does that.

        Measured here once for all steps.

        Args:
            bank: The UNet's LoRA bank.
        """
        if self.method.layer_scale is None:
            return self
        column = {digest: index for index, digest in enumerate(self.loras)}
        pairs = [
            (column[by_kind["concept"]], column[by_kind["style"]])
            for by_kind in ({lora.kind: lora.digest for lora in r.row.loras} for r in self.rows)
        ]
        return replace(self, layer_choice=LayerChoice.of(bank, pairs))

    def weights_at(self, step: int) -> Float[Tensor, "row_variant lora"] | LayerWeights:
        """Return every variant's LoRA weights in the UNet at ``step``."""
        per_variant = [
            (lanes.row, shares)
            for lanes in self.rows
            for shares in self.method.shares_at(step, lanes.variants, lanes.mix)
        ]
        weights = lora_weights(per_variant, self.loras).to(self.map_tokens.device)
        scale = self.method.layer_scale
        if self.layer_choice is None or scale is None:
            return weights
        return self.layer_choice.weights(scale(step, self.kind.sampler), weights)

    def context_weights(self) -> Float[Tensor, "row_variant lora"]:
        """Return every variant's LoRA weights in the layers that read the text of gated rows."""
        per_variant = [
            (lanes.row, variant.context_shares or variant.shares)
            for lanes in self.rows
            for variant in lanes.variants
        ]
        return lora_weights(per_variant, self.loras).to(self.map_tokens.device)


def lane_batch(
    model: DiffusionModel, rows: Sequence[RowLanes], loras: Sequence[str], banks: Sequence[LoraBank]
) -> LaneBatch:
    """Return the lanes of ``rows``, whose texts are encoded here once for all steps.

    Args:
        model: Base model.
        rows: Rows of one kind.
        loras: Digests of all LoRAs of these rows, in the order of the banks' columns.
        banks: One LoRA bank per text tower.

    Raises:
        ValueError: There are no rows, or they are of several kinds.
    """
    kind = BatchKind.shared_by(rows)
    prompts = [marked for lanes in rows for marked in lanes.prompts]
    negatives = [negative_of(lanes.row) for lanes in rows for _ in lanes.prompts]
    weights = lora_weights(
        [
            (lanes.row, _text_shares(lanes.row, variant))
            for lanes in rows
            for variant in lanes.variants
        ],
        loras,
    ).to(model.device)
    encoded = partial(
        encode,
        model,
        banks,
        weights=weights,
        width_px=kind.width_px,
        height_px=kind.height_px,
        num_chunks=kind.num_chunks,
        clip_skip=kind.sampler.clip_skip,
        words=[lanes.words for lanes in rows for _ in lanes.prompts],
    )
    conditions: dict[Half, Conditions] = {}
    if kind.sampler.guidance_scale != 1:
        conditions[Half.UNCONDITIONAL] = encoded(negatives, negative=True)
    conditions[Half.CONDITIONAL] = encoded(prompts)
    entries = [lanes.map_entries() for lanes in rows]
    return LaneBatch(
        kind=kind,
        rows=tuple(rows),
        conditions=conditions,
        map_variants=padded([[e[0] for e in row] for row in entries], 0, model.device),
        map_tokens=padded([[e[1] for e in row] for row in entries], 0, model.device),
        map_concepts=padded([[e[2] for e in row] for row in entries], PADDING, model.device),
        mask_tokens=padded(
            [list(tokens) for lanes in rows for tokens in lanes.mask_tokens()], -1, model.device
        ).unflatten(0, (len(rows), -1)),  # [row, variant, slot]
        regions=torch.stack([lanes.regions for lanes in rows]).to(model.device),
        replaced=torch.tensor([lanes.replaced() for lanes in rows], device=model.device),
        word_bias=_word_bias(rows, conditions[Half.CONDITIONAL].text.shape[1], model),
        loras=tuple(loras),
    )


def lora_weights(
    lanes: Sequence[tuple[Row, Sequence[float]]], loras: Sequence[str]
) -> Float[Tensor, "lane lora"]:
    """Return the weight matrix of ``lanes`` (rows and the shares they take of their weights).

    A LoRA that a row names twice counts twice.
    """
    column = {digest: index for index, digest in enumerate(loras)}
    matrix = torch.zeros(len(lanes), len(loras), dtype=torch.float64)
    for lane, (row, shares) in enumerate(lanes):
        for lora, share in zip(row.sampled_loras, shares, strict=True):
            if share:
                matrix[lane, column[lora.digest]] += lora.weight * share
    return matrix


def _word_bias(
    rows: Sequence[RowLanes], num_tokens: int, model: DiffusionModel
) -> Float[Tensor, "row variant token"] | None:
    entries = [lanes.word_bias() for lanes in rows]
    if not any(biases for row in entries for biases in row):
        return None
    bias = torch.zeros(len(rows), len(entries[0]), num_tokens, dtype=model.precise_dtype)
    for row, variants in enumerate(entries):
        for variant, biases in enumerate(variants):
            for token, value in biases:
                bias[row, variant, token] = value
    return bias.to(model.device)


def _text_shares(row: Row, variant: Variant) -> tuple[float, ...]:
    """Leave concepts out of the text encoder if the row says so; styles always act on it."""
    return tuple(
        share if row.sampler.text_encoder_lora or lora.kind == "style" else 0.0
        for lora, share in zip(row.sampled_loras, variant.text_shares, strict=True)
    )


def padded(
    lists: Sequence[Sequence[int]], filler: int, device: torch.device
) -> Int[Tensor, "list slot"]:
    """Return ``lists`` as one table, filled up where they are shorter."""
    width = max(1, *(len(values) for values in lists))
    table = [[*values, *[filler] * (width - len(values))] for values in lists]
    return torch.tensor(table, device=device)
