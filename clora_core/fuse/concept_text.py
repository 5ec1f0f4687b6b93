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


def conditions_of(
    model: DiffusionModel,
    loras: Sequence[LoraFactors],
    texts: Sequence[str],
    weights: Float[Tensor, "text lora"] | None = None,
) -> Conditions:
    """Return the conditions of ``texts`` at the model's own size.

    Args:
        model: Base model.
        loras: What acts in the text encoders.
        texts: Prompts.
        weights: Of each LoRA for each text; None for 1.
    """
    banks = [LoraBank(tower.encoder, loras, tower.name) for tower in model.towers]
    side = model.default_size_px
    if weights is None:
        weights = torch.ones(len(texts), len(loras), device=model.device)
    return encode(model, banks, texts, weights, width_px=side, height_px=side)


def text_features(
    model: DiffusionModel, text_lora: LoraFactors, texts: Sequence[str]
) -> Float[Tensor, "text token channel"]:
    """Return the embeddings of ``texts``, padded, with one LoRA in the text encoders."""
    return conditions_of(model, [text_lora], texts).text


def features_of_words(
    model: DiffusionModel, text_lora: LoraFactors, words: str, texts: Sequence[str]
) -> Float[Tensor, "sample channel"]:
    """Return the embeddings of ``words`` and of the end token, in each of ``texts``.

    Args:
        model: Base model.
        text_lora: What acts in the text encoders.
        words: What calls the concept.
        texts: Prompts that end with ``words``.

    Raises:
        PromptError: The words are more than the text encoder reads.
    """
    features = text_features(model, text_lora, texts)
    tokenizer = model.towers[0].tokenizer
    num_words = num_tokens(model, words)
    found: list[Float[Tensor, "sample channel"]] = []
    for index, text in enumerate(texts):
        end = len(tokenizer(text).input_ids) - 1
        if end >= tokenizer.model_max_length:
            raise PromptError(
                f"{text!r} has {end + 1} tokens and the text encoder reads "
                f"{tokenizer.model_max_length}; shorten the trigger"
            )
        found.append(features[index, end - num_words : end + 1])
    return torch.cat(found)


def caption_features(
    model: DiffusionModel, text_lora: LoraFactors, captions: Sequence[str]
) -> Float[Tensor, "sample channel"]:
    """Return the embeddings of all tokens of ``captions``, from after the start to the end."""
    tokenizer = model.towers[0].tokenizer
    limit = tokenizer.model_max_length
    features = text_features(model, text_lora, captions)
    return torch.cat(
        [
            each[1 : min(len(tokenizer(caption).input_ids), limit)]
            for each, caption in zip(features, captions, strict=True)
        ]
    )


def num_tokens(model: DiffusionModel, words: str) -> int:
    """Return how many tokens ``words`` are, start and end not counted."""
    return len(model.towers[0].tokenizer(words).input_ids) - 2
