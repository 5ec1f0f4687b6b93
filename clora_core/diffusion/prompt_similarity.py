"""How much each concept's words matter to a prompt, by the base model's text encoder.

The weights of W-Switch and W-Composite (arXiv 2606.03792, with the numbers of its released code). A
text is the mean of its embedding over all positions, padding included. A concept's words are its
trigger and its subject as they stand in the prompt; another concept's words stay, even equal ones.
Emphasis does not count: it is the words that are compared.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.row_words import NO_WORDS, RowWords
from clora_core.diffusion.text import encode
from clora_core.lora.bank import LoraBank
from clora_core.recipe.methods import Importance
from clora_core.recipe.prompts.marked import MarkedPrompt
from clora_core.recipe.reading.text import PromptText

LEAST = 0.05
"""Least weight: published for ``ablated``, ours for ``triggers``, whose cosine may be negative."""
WITHOUT_TRIGGER = 0.1
"""Weight of a concept whose LoRA has no trigger, where words are left out."""
ALL_OF_THE_PROMPT = 2.0
"""Weight of a concept without whose words less than a prompt is left."""
SHORTEST_PROMPT = 5
"""Fewest characters of what is left."""

_Likeness = Callable[[Sequence[str]], list[float]]


def concept_importance(
    model: DiffusionModel,
    marked: MarkedPrompt,
    how: Importance,
    *,
    clip_skip: int | None = None,
    words: RowWords = NO_WORDS,
) -> tuple[float, ...]:
    """Return the weight of each concept of ``marked``, in the row's order; they add up to 1.

    Args:
        model: Base model, whose text encoders are asked without any LoRA.
        marked: The prompt with all its triggers.
        how: ``ablated`` takes one less the cosine of the prompt and the prompt without the
            concept's words; ``triggers`` the cosine of the prompt and these words alone.
        clip_skip: See ``SamplerConfig``.
        words: The row's embeddings, which are words and not LoRAs here.
    """
    likeness_to = partial(_likeness, model, marked.text, clip_skip, words)
    weigh = _ablated if how == "ablated" else _triggers
    weights = weigh(marked, likeness_to)
    return tuple(weight / sum(weights) for weight in weights)


def _ablated(marked: MarkedPrompt, likeness_to: _Likeness) -> list[float]:
    left = [without_words(marked, concept) for concept in range(len(marked.subjects))]
    likeness = likeness_to(left)
    return [
        WITHOUT_TRIGGER
        if marked.triggers[concept] is None
        else ALL_OF_THE_PROMPT
        if len(left[concept]) < SHORTEST_PROMPT
        else max(LEAST, 1 - likeness[concept])
        for concept in range(len(left))
    ]


def _triggers(marked: MarkedPrompt, likeness_to: _Likeness) -> list[float]:
    spans = [marked.words(concept) for concept in range(len(marked.subjects))]
    words = [marked.text[start:end] for start, end in spans]
    return [max(LEAST, likeness) for likeness in likeness_to(words)]


def without_words(marked: MarkedPrompt, concept: int) -> str:
    """Return the prompt without a concept's words, and without the gap that they leave."""
    start, end = marked.words(concept)
    text = marked.text[:start] + marked.text[end:]
    text = re.sub(r"\s*,\s*,\s*", ", ", text)
    return re.sub(r"\s+", " ", text).strip().strip(",").strip()


def _likeness(
    model: DiffusionModel,
    prompt: str,
    clip_skip: int | None,
    words: RowWords,
    texts: Sequence[str],
) -> list[float]:
    """Return the cosine of the prompt's mean embedding and that of each of ``texts``."""
    means = mean_embeddings(model, [prompt, *texts], clip_skip=clip_skip, words=words)
    return torch.cosine_similarity(means[:1], means[1:]).tolist()


def mean_embeddings(
    model: DiffusionModel,
    texts: Sequence[str],
    *,
    clip_skip: int | None = None,
    words: RowWords = NO_WORDS,
) -> Float[Tensor, "text channel"]:
    """Return each text's embedding as the UNet reads it, in its mean over all positions."""
    nothing = [LoraBank(tower.encoder, [], tower.name) for tower in model.towers]
    side = model.default_size_px
    weights = torch.zeros(len(texts), 0, device=model.device)
    prompts = [MarkedPrompt(PromptText(text)) for text in texts]
    conditions = encode(
        model,
        nothing,
        prompts,
        weights,
        width_px=side,
        height_px=side,
        clip_skip=clip_skip,
        words=[words] * len(texts),
    )
    return conditions.text.double().mean(dim=1)
