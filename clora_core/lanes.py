"""Lanes: the unit of compute. One lane is one prompt variant of one row, for one guidance half.

A batch of rows becomes rows x variants lanes, row by row, each with its text and LoRA weights; the
UNet sees all of them at once. What the loss and the masks need, which token of which variant stands
for which concept, is laid out here as index tensors, padded where rows differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clora_core.diffusion.model import BaseModel
from clora_core.diffusion.text import Conditions, encode
from clora_core.errors import PromptError
from clora_core.lora.bank import LoraBank
from clora_core.loss import PADDING
from clora_core.methods import METHODS, Method, Variant
from clora_core.prompts import MarkedPrompt, mark_prompt
from clora_core.regions import region_mask
from clora_core.rows import ComposeRow
from clora_core.tokens import ConceptPositions, concept_positions


@dataclass(frozen=True)
class RowLanes:
    """One row's variants, their prompts and where the concepts are in them."""

    row: ComposeRow
    variants: tuple[Variant, ...]
    prompts: tuple[MarkedPrompt, ...]
    positions: tuple[tuple[ConceptPositions, ...], ...]  # [variant][concept]
    regions: Float[Tensor, "variant map_height map_width"]

    def map_entries(self) -> list[tuple[int, int, int]]:
        """Return (variant, token, concept) of every map the loss compares.

        In a concept's own variant its trigger counts with its subject; elsewhere the subject.
        """
        return [
            (v, token, concept)
            for v, variant in enumerate(self.variants)
            for concept, found in enumerate(self.positions[v])
            for token in (found.own if variant.concept == concept else found.subject)
        ]

    def mask_tokens(self) -> list[tuple[int, ...]]:
        """Return per variant the tokens its mask is made from: its own trigger and subject."""
        return [
            () if variant.concept is None else self.positions[v][variant.concept].own
            for v, variant in enumerate(self.variants)
        ]

    def replaced(self) -> list[bool]:
        """Return per variant whether its region is its mask."""
        regions = [
            None if variant.concept is None else self.row.concepts[variant.concept].region
            for variant in self.variants
        ]
        return [region is not None and region.mode == "replace" for region in regions]


@dataclass(frozen=True)
class LaneBatch:
    """All lanes of some rows of one method, size and number of variants.

    Attributes:
        rows: Every row's variants.
        num_variants: Variants of each row.
        conditional: Conditions of the prompts, lane by lane.
        unconditional: Conditions of the negative prompts; None where guidance is off.
        map_variants: Variant of each compared map.
        map_tokens: Token of each compared map.
        map_concepts: Concept of each compared map, or ``PADDING``.
        mask_tokens: Tokens each variant's mask is made from, -1 where there are fewer.
        regions: What each variant's mask must respect, 1 inside; all ones without a region.
        replaced: Variants whose region is their mask.
        loras: Column of every LoRA digest in the weights.
    """

    rows: tuple[RowLanes, ...]
    num_variants: int
    conditional: Conditions
    unconditional: Conditions | None
    map_variants: Int[Tensor, "row map"]
    map_tokens: Int[Tensor, "row map"]
    map_concepts: Int[Tensor, "row map"]
    mask_tokens: Int[Tensor, "row variant slot"]
    regions: Float[Tensor, "row variant map_height map_width"]
    replaced: Bool[Tensor, "row variant"]
    loras: tuple[str, ...]

    @property
    def num_lanes(self) -> int:
        """Rows times variants."""
        return len(self.rows) * self.num_variants

    def weights_at(self, method: Method, step: int) -> Float[Tensor, "lane lora"]:
        """Return every lane's LoRA weights in the UNet at ``step``."""
        per_lane = [
            (lanes.row, weights)
            for lanes in self.rows
            for weights in method.weights_at(lanes.row, lanes.variants, step, lanes.row.sampler)
        ]
        return lora_weights(per_lane, self.loras).to(self.map_tokens.device)


def row_lanes(model: BaseModel, row: ComposeRow) -> RowLanes:
    """Return the variants of ``row`` with their prompts and token positions.

    Raises:
        CompositionError: The method cannot make this row.
        PromptError: A subject is missing from the prompt or cut off by the text encoder's limit.
    """
    if row.method not in METHODS:
        raise PromptError(f"no method {row.method!r}; there are {', '.join(METHODS)}")
    method = METHODS[row.method]
    variants = method.variants(row)
    concepts = row.concepts
    if row.method != "base" and not method.masked and any(lora.region for lora in row.loras):
        masked = ", ".join(name for name, known in METHODS.items() if known.masked)
        raise PromptError(
            f"method {row.method!r} cannot keep a LoRA in a region, having no masks; use one of "
            f"{masked}, or leave the region out"
        )
    prompts = tuple(mark_prompt(row.prompt, concepts, v.triggers) for v in variants)
    tokenizer = model.towers[0].tokenizer
    positions = tuple(concept_positions(tokenizer, marked, concepts) for marked in prompts)
    return RowLanes(row, variants, prompts, positions, _regions(model, row, variants))


def lane_batch(
    model: BaseModel, rows: Sequence[RowLanes], loras: Sequence[str], banks: Sequence[LoraBank]
) -> LaneBatch:
    """Return the lanes of ``rows``, whose texts are encoded here once for all steps.

    Args:
        model: Base model.
        rows: Rows of one method, sampler config, size and number of variants.
        loras: Digests of all LoRAs of these rows, in the order of the banks' columns.
        banks: One LoRA bank per text tower.
    """
    first = rows[0].row
    texts = [marked.text for lanes in rows for marked in lanes.prompts]
    negatives = [lanes.row.negative_prompt for lanes in rows for _ in lanes.prompts]
    weights = lora_weights(
        [
            (lanes.row, _text_weights(lanes.row, variant))
            for lanes in rows
            for variant in lanes.variants
        ],
        loras,
    ).to(model.device)
    width_px, height_px = first.width, first.height
    guided = first.sampler.guidance_scale != 1
    negative = (
        encode(
            model, banks, negatives, weights, width_px=width_px, height_px=height_px, negative=True
        )
        if guided
        else None
    )
    entries = [lanes.map_entries() for lanes in rows]
    return LaneBatch(
        rows=tuple(rows),
        num_variants=len(rows[0].variants),
        conditional=encode(model, banks, texts, weights, width_px=width_px, height_px=height_px),
        unconditional=negative,
        map_variants=_padded([[e[0] for e in row] for row in entries], 0, model.device),
        map_tokens=_padded([[e[1] for e in row] for row in entries], 0, model.device),
        map_concepts=_padded([[e[2] for e in row] for row in entries], PADDING, model.device),
        mask_tokens=_padded(
            [list(tokens) for lanes in rows for tokens in lanes.mask_tokens()], -1, model.device
        ).unflatten(0, (len(rows), -1)),
        regions=torch.stack([lanes.regions for lanes in rows]).to(model.device),
        replaced=torch.tensor([lanes.replaced() for lanes in rows], device=model.device),
        loras=tuple(loras),
    )


def _regions(
    model: BaseModel, row: ComposeRow, variants: Sequence[Variant]
) -> Float[Tensor, "variant height width"]:
    layers = model.map_layers(row.sampler.map_size)
    shape = layers.map_shape(row.height // model.image_scale, row.width // model.image_scale)
    masks = torch.ones(len(variants), *shape, dtype=model.precise_dtype)
    for index, variant in enumerate(variants):
        region = None if variant.concept is None else row.concepts[variant.concept].region
        if region is not None:
            masks[index] = region_mask(region, *shape)
    return masks


def lora_weights(
    lanes: Sequence[tuple[ComposeRow, Sequence[float]]], loras: Sequence[str]
) -> Float[Tensor, "lane lora"]:
    """Return the weight matrix of ``lanes``; a LoRA that a row names twice counts twice."""
    column = {digest: index for index, digest in enumerate(loras)}
    matrix = torch.zeros(len(lanes), len(loras), dtype=torch.float64)
    for lane, (row, weights) in enumerate(lanes):
        for lora, weight in zip(row.loras, weights, strict=True):
            matrix[lane, column[lora.digest]] += weight
    return matrix


def _text_weights(row: ComposeRow, variant: Variant) -> tuple[float, ...]:
    """Leave concepts out of the text encoder if the row says so; styles always act on it."""
    return tuple(
        weight if row.sampler.text_encoder_lora or lora.kind == "style" else 0.0
        for lora, weight in zip(row.loras, variant.text_weights, strict=True)
    )


def _padded(lists: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    width = max(1, *(len(values) for values in lists))
    table = [[*values, *[filler] * (width - len(values))] for values in lists]
    return torch.tensor(table, device=device)
