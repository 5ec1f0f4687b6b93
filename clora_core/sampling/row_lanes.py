"""One row laid out in variants: their prompts, and which token stands for which concept.

Which rows can share a batch follows from here as well: those of one ``BatchKind``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.prompt_similarity import concept_importance
from clora_core.diffusion.row_words import NO_WORDS, RowWords
from clora_core.diffusion.text_tokens import chunked_tokens, tokenized
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import FusionError, PromptError
from clora_core.recipe.findings import region_problem
from clora_core.recipe.methods import METHODS, GateRecipe, Mix, Variant
from clora_core.recipe.prompts.chunks import num_chunks
from clora_core.recipe.prompts.marked import MarkedPrompt, mark_prompts
from clora_core.recipe.row import Region, Row
from clora_core.sampling.regions import region_mask
from clora_core.sampling.tokens import ConceptPositions, concept_positions


@dataclass(frozen=True)
class BatchKind:
    """What rows must have in common to be sampled together; rows are grouped by it.

    Attributes:
        num_chunks: Windows of the text encoder in each of their texts.
        is_placed: Gated rows whose regions alone say where every concept is.
    """

    method: str
    sampler: SamplerConfig
    width_px: int
    height_px: int
    num_variants: int
    num_chunks: int
    is_placed: bool = False

    @classmethod
    def shared_by(cls, rows: Sequence["RowLanes"]) -> "BatchKind":
        """Return the kind of all ``rows``; a ValueError names the fields in which they differ."""
        kinds = {lanes.kind for lanes in rows}
        if len(kinds) != 1:
            names = [each.name for each in fields(cls)]
            differing = [name for name in names if len({getattr(k, name) for k in kinds}) > 1]
            raise ValueError(
                f"a batch needs rows of one kind, these are of {len(kinds)} "
                f"({', '.join(differing) or 'no rows'}); group rows by RowLanes.kind"
            )
        return kinds.pop()


@dataclass(frozen=True)
class RowLanes:
    """One row's variants, their prompts and where the concepts are in them.

    Attributes:
        num_chunks: Windows of the text encoder that each text fills or is padded to.
        importance: How much each concept weighs by its words, where the method asks.
        words: Embeddings that its texts may name.
    """

    row: Row
    variants: tuple[Variant, ...]
    prompts: tuple[MarkedPrompt, ...]
    positions: tuple[tuple[ConceptPositions, ...], ...]  # [variant][concept]
    regions: Float[Tensor, "variant region_height region_width"]
    num_chunks: int = 1
    importance: tuple[float, ...] = ()
    words: RowWords = NO_WORDS

    @property
    def mix(self) -> Mix:
        """What the method combines."""
        return replace(Mix.of(self.row), importance=self.importance)

    @property
    def kind(self) -> BatchKind:
        """What other rows must share to be in one batch with this one."""
        row = self.row
        gate = self.gate
        return BatchKind(
            row.method,
            row.sampler,
            row.width,
            row.height,
            len(self.variants),
            self.num_chunks,
            is_placed=gate is not None and (not gate.needs_maps or all(self.replaced()[1:])),
        )

    @property
    def gate(self) -> GateRecipe | None:
        """The rules of a gated row, whose variants share one lane."""
        return METHODS[self.row.method].gate(len(self.variants), self.row.sampler)

    @property
    def num_lanes(self) -> int:
        """Lanes of the row in one guidance half."""
        return len(self.variants) if self.gate is None else 1

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
        """Return per variant the tokens its mask is made from: its own trigger and subject.

        Where the masks come from the base variant's text, the subject there.
        """
        from_base = self.gate is not None and self.gate.source in ("base", "self")
        return [
            ()
            if variant.concept is None
            else self.positions[0][variant.concept].subject
            if from_base
            else self.positions[v][variant.concept].own
            for v, variant in enumerate(self.variants)
        ]

    def word_bias(self) -> list[tuple[tuple[int, float], ...]]:
        """Return per variant (token, bias) of what its attention is drawn to or kept from."""
        gate = self.gate
        if gate is None or not (gate.negative_bias or gate.positive_bias):
            return [() for _ in self.variants]
        return [
            tuple(
                (token, gate.positive_bias if concept == variant.concept else -gate.negative_bias)
                for concept, found in enumerate(self.positions[v])
                for token in found.own
                if variant.concept is not None
            )
            for v, variant in enumerate(self.variants)
        ]

    def replaced(self) -> list[bool]:
        """Return per variant whether its region is its mask."""
        regions = [_region(self.row, variant) for variant in self.variants]
        return [region is not None and region.mode == "replace" for region in regions]


def row_lanes(model: DiffusionModel, row: Row, words: RowWords = NO_WORDS) -> RowLanes:
    """Return the variants of ``row`` with their prompts and token positions.

    Args:
        model: Base model.
        row: The row.
        words: Its embeddings, from ``row_words``.

    Raises:
        CompositionError: The method cannot make this row.
        FusionError: The method samples with a fused adapter and the row has none.
        PromptError: A subject is missing from the prompt, or a text cannot be read.
    """
    if words.words != row.words:
        raise ValueError(f"the row has the embeddings {row.words}, and got {words.words}")
    if row.method not in METHODS:
        raise PromptError(f"no method {row.method!r}; there are {', '.join(METHODS)}")
    method = METHODS[row.method]
    variants = method.variants(Mix.of(row))
    concepts = row.concepts
    problem = region_problem(row.method, row.loras)
    if problem is not None:
        raise PromptError(f"method {problem}")
    if method.fused_by is not None and row.fused is None:
        raise FusionError(f"method {row.method!r} needs the row's LoRAs fused beforehand")
    syntax = row.sampler.prompt_syntax
    actives = [variant.triggers for variant in variants]
    prompts = tuple(mark_prompts(row.prompt, concepts, actives, syntax))
    tower = model.towers[0]
    positions = tuple(
        concept_positions(
            chunked_tokens(tower.tokenizer, marked, model.text_window, words.words),
            marked,
            concepts,
        )
        for marked in prompts
    )
    importance: tuple[float, ...] = ()
    if method.importance is not None:  # every variant of such a method has all triggers
        importance = concept_importance(
            model, prompts[0], method.importance, clip_skip=row.sampler.clip_skip, words=words
        )
    regions = _regions(model, row, variants)
    chunks = _num_chunks(model, row)
    return RowLanes(row, variants, prompts, positions, regions, chunks, importance, words)


def _num_chunks(model: DiffusionModel, row: Row) -> int:
    """Return the windows of each text; the row may ask for more, as when its triggers are out."""
    needed = num_chunks(row, partial(tokenized, model.towers[0].tokenizer), model.text_window)
    if row.text_chunks is None:
        return needed
    if needed > row.text_chunks:
        raise PromptError(
            f"the row was counted as {row.text_chunks} chunk(s) of text and this base model's "
            f"tokenizer makes {needed} of it; check the row with this base model"
        )
    return row.text_chunks


def _region(row: Row, variant: Variant) -> Region | None:
    return None if variant.concept is None else row.concepts[variant.concept].region


def _regions(
    model: DiffusionModel, row: Row, variants: Sequence[Variant]
) -> Float[Tensor, "variant region_height region_width"]:
    """Return each variant's region at the size of the maps, or of the latents for a gated row."""
    shape = model.latent_shape(row.width, row.height)
    if METHODS[row.method].gate(len(variants), row.sampler) is None:
        shape = model.map_layers(row.sampler.map_size).map_shape(*shape)
    masks = torch.ones(len(variants), *shape, dtype=model.precise_dtype)
    for index, variant in enumerate(variants):
        region = _region(row, variant)
        if region is not None:
            masks[index] = region_mask(region, *shape)
    return masks
