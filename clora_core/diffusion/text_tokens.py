"""A text's tokens in windows of the text encoder, by its own tokenizer and never by hand.

Works with any tokenizer that reports offsets, and has one token at the start and one at the end.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

from clora_core.recipe.prompts.chunks import chunks_of
from clora_core.recipe.prompts.marked import MarkedPrompt, Span


@dataclass(frozen=True)
class ChunkedTokens:
    """A text as the text encoder reads it.

    Attributes:
        ids: Tokens of each window, start, end and padding included.
        weights: Emphasis of each.
        empty: Tokens of a window without words.
        spans: Characters of every word token, in order.
        positions: Where each of them stands among the tokens of all windows.
    """

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    empty: tuple[int, ...]
    spans: tuple[Span, ...]
    positions: tuple[int, ...]

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


def chunked_tokens(tokenizer: Any, prompt: MarkedPrompt, window: int) -> ChunkedTokens:
    """Return the tokens of ``prompt`` in windows of the text encoder.

    Args:
        tokenizer: The text encoder's.
        prompt: The text.
        window: Tokens that it reads at once, start and end included.

    Raises:
        PromptError: A concept's words are longer than a window.
    """
    found = tokenizer(prompt.text, return_offsets_mapping=True, truncation=False, verbose=False)
    first, *words, last = found["input_ids"]
    spans = _word_spans(found)
    pad = cast("int", tokenizer.pad_token_id)
    of_characters = prompt.read.weight_of_each()
    ids: list[tuple[int, ...]] = []
    weights: list[tuple[float, ...]] = []
    positions: list[int] = []
    for number, chunk in enumerate(chunks_of(spans, prompt, window)):
        own = [words[index] for index in chunk]
        rest = window - len(own) - 2
        ids.append((first, *own, last, *(pad,) * rest))
        emphasis = (of_characters[spans[index][0]] for index in chunk)
        weights.append((1.0, *emphasis, *(1.0,) * (rest + 1)))
        positions += range(number * window + 1, number * window + 1 + len(own))
    empty = (first, last, *(pad,) * (window - 2))
    return ChunkedTokens(tuple(ids), tuple(weights), empty, tuple(spans), tuple(positions))


def tokenized(tokenizer: Any, text: str) -> list[Span]:
    """Return the characters of each word token of ``text``."""
    return _word_spans(
        tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    )


def _word_spans(found: Any) -> list[Span]:
    return [(start, end) for start, end in found["offset_mapping"][1:-1]]
