"""Weights of concepts by their words, text by text with transformers' own encoders."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from oracles.peft_pipeline import activate_in_text
from oracles.prompts import insert_triggers
from torch import Tensor

from clora_core.recipe.row import Lora


def loop_importance(pipeline: Any, prompt: str, concepts: Sequence[Lora], how: str) -> list[float]:
    """Return the weights of ``concepts``, adding up to 1; all adapters are switched off.

    Args:
        pipeline: From ``load_pipeline``.
        prompt: Without triggers.
        concepts: The row's.
        how: ``ablated`` or ``triggers``.
    """
    activate_in_text(pipeline, [])
    whole, spans = insert_triggers(prompt, concepts, range(len(concepts)))
    weights: list[float] = []
    for concept, (start, end) in zip(concepts, spans, strict=True):
        rest = " ".join((whole[:start] + whole[end:]).split())
        rest = re.sub(r" ?, ?, ?", ", ", rest).strip(" ,")
        if how == "triggers":
            weights.append(max(0.05, _likeness(pipeline, whole, whole[start:end])))
        elif not concept.trigger:
            weights.append(0.1)
        elif len(rest) < 5:
            weights.append(2.0)
        else:
            weights.append(max(0.05, 1 - _likeness(pipeline, whole, rest)))
    return [weight / sum(weights) for weight in weights]


def _likeness(pipeline: Any, left: str, right: str) -> float:
    one, other = (_mean(pipeline, text).tolist() for text in (left, right))
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _mean(pipeline: Any, text: str) -> Tensor:
    towers = [(pipeline.tokenizer, pipeline.text_encoder)]
    is_xl = hasattr(pipeline, "text_encoder_2")
    if is_xl:
        towers.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    means: list[Tensor] = []
    for tokenizer, encoder in towers:
        ids = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            output = encoder(ids, output_hidden_states=True)
        states = output.hidden_states[-2] if is_xl else output.last_hidden_state
        assert states.shape[1] == 77
        means.append(sum(states[0, position] for position in range(77)) / 77)
    return torch.cat(means)
