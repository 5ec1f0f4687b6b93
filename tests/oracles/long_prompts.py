"""Long prompts as a loop over words: chunks are texts, each encoded by diffusers on its own.

Written apart from the product's own, which cuts tokens. No word is read twice; a chunk ends at
``BREAK``, else after the last comma of its last 20 tokens of 75, else before the word that is too
many.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from oracles.peft_pipeline import Conditioning, encode
from oracles.prompts import OracleVariant

from clora_core.recipe.row import Row

CAPACITY = 75
NEAR_THE_END = 20


def chunk_texts(text: str, tokenizer: Any) -> list[str]:
    """Return the text of each chunk."""
    chunks: list[str] = []
    for segment in text.split(" BREAK "):
        words = segment.replace(",", " ,").split()
        while len(_tokens(words, tokenizer)) > CAPACITY:
            fitting = len(words)
            while len(_tokens(words[:fitting], tokenizer)) > CAPACITY:
                fitting -= 1
            for place in range(fitting, 0, -1):
                after = CAPACITY - len(_tokens(words[:place], tokenizer))
                if words[place - 1] == "," and after <= NEAR_THE_END:
                    fitting = place
                    break
            chunks.append(" ".join(words[:fitting]))
            words = words[fitting:]
        chunks.append(" ".join(words))
    return chunks


def encode_long(pipeline: Any, row: Row, prompt: str, num_chunks: int, *, guided: bool) -> Any:
    """Return the conditions of all chunks side by side, those of the negative prompt alike."""
    texts = _padded(chunk_texts(prompt, pipeline.tokenizer), num_chunks)
    negatives = _padded(chunk_texts(row.negative_prompt, pipeline.tokenizer), num_chunks)
    parts = [
        encode(pipeline, replace(row, negative_prompt=negative), text, guided=guided)
        for text, negative in zip(texts, negatives, strict=True)
    ]
    return Conditioning(
        states=torch.cat([part.states for part in parts], dim=1), added=parts[0].added
    )


def in_chunks(variant: OracleVariant, words: Sequence[Sequence[str]], tokenizer: Any) -> Any:
    """Return the variant with the positions of its words among all chunks.

    Args:
        variant: Its text may hold BREAK.
        words: Of each concept, as they stand in the text, once each.
        tokenizer: The pipeline's.
    """
    chunks = chunk_texts(variant.text, tokenizer)
    found = tuple(
        tuple(sorted(position for word in own for position in _positions(word, chunks, tokenizer)))
        for own in words
    )
    return replace(variant, words=found)


def _positions(word: str, chunks: Sequence[str], tokenizer: Any) -> list[int]:
    for number, chunk in enumerate(chunks):
        parts = chunk.split()
        if word in parts:
            before = len(_tokens(parts[: parts.index(word)], tokenizer))
            start = number * (CAPACITY + 2) + 1 + before
            return list(range(start, start + len(_tokens([word], tokenizer))))
    raise ValueError(f"{word!r} is in none of {chunks}")


def _tokens(words: Sequence[str], tokenizer: Any) -> list[int]:
    return tokenizer(" ".join(words), add_special_tokens=False).input_ids


def _padded(texts: list[str], num_chunks: int) -> list[str]:
    return [*texts, *[""] * (num_chunks - len(texts))]
