"""What a row of a gated method is composed of: each part's text, its LoRAs and its words."""

from collections.abc import Sequence
from typing import Any

from oracles.gated_pass import Part
from oracles.prompts import oracle_variant

from clora_core.recipe.row import Row


def parts_of(row: Row, tokenizer: Any) -> list[Part]:
    """Return the base's part and one for each concept that has a place of its own."""
    everyone = list(range(len(row.concepts)))
    placed = [number for number in everyone if row.concepts[number].region is not None]
    free = [number for number in everyone if number not in placed]
    parts: list[Part] = []
    for active in [None, *(placed if row.method == "merge" else everyone)]:
        alone = [] if active is None else [active]
        if row.method == "merge":
            shown = acting = heard = read = [*free, *alone]
        elif row.method == "freefuse":
            shown, acting, heard, read = everyone, alone, everyone, everyone
        else:
            shown = acting = heard = read = alone
        parts.append(
            Part(
                variant=oracle_variant(row.prompt, row.concepts, tokenizer, shown, active),
                weights=_weights(row, acting),
                text_weights=_weights(row, heard, in_text=True),
                context_weights=_weights(row, read),
            )
        )
    return parts


def _weights(row: Row, chosen: Sequence[int], *, in_text: bool = False) -> list[float]:
    weights: list[float] = []
    concept = 0
    for lora in row.loras:
        if lora.kind == "style":
            weights.append(lora.weight)
            continue
        heard = row.sampler.text_encoder_lora or not in_text
        share = len(chosen) if row.sampler.merge_weights == "mean" else 1
        weights.append(lora.weight / share if concept in chosen and heard else 0.0)
        concept += 1
    return weights


def word_bias(row: Row, parts: Sequence[Part]) -> list[dict[int, float]]:
    """Return for each part {token: what its attention scores get}; nothing but for freefuse."""
    if row.method != "freefuse":
        return []
    less, more = row.sampler.freefuse_negative_bias, row.sampler.freefuse_positive_bias
    biases: list[dict[int, float]] = []
    for part in parts:
        bias: dict[int, float] = {}
        for concept, tokens in enumerate(part.variant.words):
            for token in tokens if part.variant.active is not None else ():
                bias[token] = more if concept == part.variant.active else -less
        biases.append(bias)
    return biases
