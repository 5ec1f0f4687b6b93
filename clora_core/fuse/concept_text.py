"""Text features of a concept's words, as the UNet's cross-attention sees them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.text import encode
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.chunks import NUM_SPECIAL
from clora_core.recipe.prompts.marked import MarkedPrompt
from clora_core.recipe.reading.text import PromptText


def conditions_of(
    model: DiffusionModel,
    loras: Sequence[LoraFactors],
    texts: Sequence[str],
    weights: Float[Tensor, "text lora"] | None = None,
    *,
    clip_skip: int | None = None,
) -> Conditions:
    """Return the conditions of ``texts`` at the model's own size.

    Args:
        model: Base model.
        loras: What acts in the text encoders.
        texts: Prompts.
        weights: Of each LoRA for each text; None for 1.
        clip_skip: See ``SamplerConfig``.

    Raises:
        PromptError: A text is longer than the text encoder reads at once: recipes are defined for
            one window.
    """
    for text in texts:
        num_read, most = num_tokens(model, text), model.text_window - NUM_SPECIAL
        if num_read > most:
            raise PromptError(
                f"{text!r} has {num_read} tokens, and for fusing it must fit the {most} that the "
                "text encoder reads at once; shorten the trigger, or the text in the settings"
            )
    banks = [LoraBank(tower.encoder, loras, tower.name) for tower in model.towers]
    side = model.default_size_px
    if weights is None:
        weights = torch.ones(len(texts), len(loras), device=model.device)
    prompts = [MarkedPrompt(PromptText(text)) for text in texts]
    return encode(
        model, banks, prompts, weights, width_px=side, height_px=side, clip_skip=clip_skip
    )


def text_features(
    model: DiffusionModel,
    text_lora: LoraFactors,
    texts: Sequence[str],
    *,
    clip_skip: int | None = None,
) -> Float[Tensor, "text token channel"]:
    """Return the embeddings of ``texts``, padded, with one LoRA in the text encoders."""
    return conditions_of(model, [text_lora], texts, clip_skip=clip_skip).text


def features_of_words(
    model: DiffusionModel,
    text_lora: LoraFactors,
    words: str,
    texts: Sequence[str],
    *,
    clip_skip: int | None = None,
) -> Float[Tensor, "sample channel"]:
    """Return the embeddings of ``words`` and of the end token, in each of ``texts``.

    Args:
        model: Base model.
        text_lora: What acts in the text encoders.
        words: What calls the concept.
        texts: Prompts that end with ``words``.
        clip_skip: See ``SamplerConfig``.

    Raises:
        PromptError: A text is longer than the text encoder reads at once.
    """
    features = text_features(model, text_lora, texts, clip_skip=clip_skip)
    tokenizer = model.towers[0].tokenizer
    num_words = num_tokens(model, words)
    found: list[Float[Tensor, "sample channel"]] = []
    for index, text in enumerate(texts):
        end = len(tokenizer(text).input_ids) - 1
        found.append(features[index, end - num_words : end + 1])
    return torch.cat(found)


def caption_features(
    model: DiffusionModel,
    text_lora: LoraFactors,
    captions: Sequence[str],
    *,
    clip_skip: int | None = None,
) -> Float[Tensor, "sample channel"]:
    """Return the embeddings of all words of ``captions``, and of the end after the last one."""
    features = text_features(model, text_lora, captions, clip_skip=clip_skip)
    return torch.cat(
        [
            each[1 : num_tokens(model, caption) + 2]
            for each, caption in zip(features, captions, strict=True)
        ]
    )


def num_tokens(model: DiffusionModel, words: str) -> int:
    """Return how many tokens ``words`` are, start and end not counted."""
    return len(model.towers[0].tokenizer(words, verbose=False).input_ids) - NUM_SPECIAL
