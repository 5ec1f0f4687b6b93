"""A text's tokens in windows of the text encoder, by its own tokenizer and never by hand.

Works with any tokenizer that reports offsets, and has one token at the start and one at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from clora_core.recipe.prompts.chunks import chunks_of, embedded_tokens
from clora_core.recipe.prompts.marked import MarkedPrompt, Span
from clora_core.recipe.reading.embedded import EmbeddedWord


class EmbeddedToken(NamedTuple):
    """A token that has a vector of an embedding in place of its own.

    Attributes:
        chunk: Window that it is in.
        position: In that window.
        word: Index of the embedding.
        vector: Index among the embedding's vectors.
    """

    chunk: int
    position: int
    word: int
    vector: int


@dataclass(frozen=True)
class ChunkedTokens:
    """A text as the text encoder reads it.

    Attributes:
        ids: Tokens of each window, start, end and padding included.
        weights: Emphasis of each.
        empty: Tokens of a window without words.
        spans: Characters of every word token, in order.
        positions: Where each of them stands among the tokens of all windows.
        embedded: Those that are an embedding's.
    """

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    empty: tuple[int, ...]
    spans: tuple[Span, ...]
    positions: tuple[int, ...]
    embedded: tuple[EmbeddedToken, ...] = ()

    def padded(self, num_chunks: int) -> "ChunkedTokens":
        """Return the text with windows without words up to ``num_chunks``.

        Raises:
            ValueError: It has more.
        """
        missing = num_chunks - len(self.ids)
        if missing < 0:
            raise ValueError(f"a text of {len(self.ids)} chunks where there are {num_chunks}")
        return replace(
            self,
            ids=(*self.ids, *(self.empty,) * missing),
            weights=(*self.weights, *((1.0,) * len(self.empty),) * missing),
        )

    def at(self, span: Span) -> tuple[int, ...]:
        """Return the positions of the tokens that overlap the characters ``span``."""
        return tuple(
            position
            for position, (start, end) in zip(self.positions, self.spans, strict=True)
            if start < span[1] and span[0] < end
        )


def chunked_tokens(
    tokenizer: Any, prompt: MarkedPrompt, window: int, words: Sequence[EmbeddedWord] = ()
) -> ChunkedTokens:
    """Return the tokens of ``prompt`` in windows of the text encoder.

    Args:
        tokenizer: The text encoder's.
        prompt: The text.
        window: Tokens that it reads at once, start and end included.
        words: Embeddings that its LoRAs bring along.

    Raises:
        PromptError: A concept's words, or an embedding, are longer than a window.
    """
    first, last = tokenizer("")["input_ids"]
    read: list[int] = []

    def tokenize(text: str) -> list[Span]:
        found = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
        read.extend(found["input_ids"][1:-1])
        return _word_spans(found)

    spans, slots = embedded_tokens(tokenize, prompt.read, words)
    for slot in slots:  # in order, so that what was read keeps its places
        start = slot.tokens.start
        read[start:start] = [_ordinary_token(tokenizer)] * len(slot.tokens)
    vectors = {
        token: (slot.word, vector) for slot in slots for vector, token in enumerate(slot.tokens)
    }
    pad = cast("int", tokenizer.pad_token_id)
    of_characters = prompt.read.weight_of_each()
    ids: list[tuple[int, ...]] = []
    weights: list[tuple[float, ...]] = []
    positions: list[int] = []
    embedded: list[EmbeddedToken] = []
    for number, chunk in enumerate(chunks_of(spans, prompt, window, slots)):
        own = [read[index] for index in chunk]
        rest = window - len(own) - 2
        ids.append((first, *own, last, *(pad,) * rest))
        emphasis = (of_characters[spans[index][0]] for index in chunk)
        weights.append((1.0, *emphasis, *(1.0,) * (rest + 1)))
        positions += range(number * window + 1, number * window + 1 + len(own))
        embedded += (
            EmbeddedToken(number, position, *vectors[index])
            for position, index in enumerate(chunk, start=1)
            if index in vectors
        )
    return ChunkedTokens(
        ids=tuple(ids),
        weights=tuple(weights),
        empty=(first, last, *(pad,) * (window - 2)),
        spans=tuple(spans),
        positions=tuple(positions),
        embedded=tuple(embedded),
    )


def tokenized(tokenizer: Any, text: str) -> list[Span]:
    """Return the characters of each word token of ``text``."""
    return _word_spans(
        tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    )


def _ordinary_token(tokenizer: Any) -> int:
    """Return a token that no text encoder takes for the end of a text, whatever vector it has."""
    special = cast("list[int]", tokenizer.all_special_ids)
    return next(token for token in range(len(special) + 1) if token not in special)


def _word_spans(found: Any) -> list[Span]:
    return [(start, end) for start, end in found["offset_mapping"][1:-1]]
