"""How a text longer than the text encoder's window is cut into chunks of one window each.

As A1111 and ComfyUI read long prompts: each chunk goes through the text encoder by itself, with a
start and an end token of its own, and the UNet reads all of them side by side. A chunk ends where
``BREAK`` says; else at the last comma, if one stands near its end (A1111's 20 of 75 tokens); else
between words. A word is not split unless it is longer than a chunk; the words of one concept and
the tokens of one embedding never are.

All variants of a row, and its negative prompt, have as many chunks as the longest of them. That
number is part of a long row's key, so it is worked out when the row is checked.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from clora_core.recipe.errors import PromptError
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.prompts.marked import MarkedPrompt, Span, mark_prompts
from clora_core.recipe.prompts.too_long import too_long
from clora_core.recipe.reading.embedded import EmbeddedWord, pieces_of
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.reading.text import PromptText
from clora_core.recipe.row import Row

MAX_CHUNKS = 32
NUM_SPECIAL = 2
"""Tokens of a window that are no words: its start and its end."""

Tokenize = Callable[[str], Sequence[Span]]
"""Returns the span of each of a text's tokens, without start and end."""

_COMMA_SHARE = 20 / 75


class LongTextError(PromptError):
    """A text is too long.

    Attributes:
        column: ``prompt`` or ``negative_prompt``.
    """

    def __init__(self, column: str, message: str) -> None:
        self.column = column
        super().__init__(message)

    def __reduce__(self) -> tuple[type["LongTextError"], tuple[str, str]]:
        """Keep the column when the error crosses a process border."""
        return type(self), (self.column, str(self))


@dataclass(frozen=True, slots=True)
class Slot:
    """The tokens of an embedding in a text.

    Attributes:
        tokens: By index among the text's.
        word: Index of the embedding.
    """

    tokens: range
    word: int


def embedded_tokens(
    tokenize: Tokenize, read: PromptText, words: Sequence[EmbeddedWord]
) -> tuple[list[Span], list[Slot]]:
    """Return the span of each token of a text, and which of them are an embedding's.

    Each token of an embedding has the span of its name. What stands between names is read by the
    tokenizer on its own.

    Args:
        tokenize: The tokenizer.
        read: The text.
        words: Embeddings that are known in it.
    """
    spans: list[Span] = []
    slots: list[Slot] = []
    for piece in pieces_of(read, words):
        start = piece.start
        if piece.word is None:
            found = tokenize(read.words[start : piece.end])
            spans += found if start == 0 else [(start + one, start + end) for one, end in found]
        else:
            num_vectors = words[piece.word].num_vectors
            slots.append(Slot(range(len(spans), len(spans) + num_vectors), piece.word))
            spans += [(start, piece.end)] * num_vectors
    return spans, slots


def chunks_of(
    tokens: Sequence[Span], marked: MarkedPrompt, window: int, slots: Sequence[Slot] = ()
) -> tuple[range, ...]:
    """Return the tokens of each chunk, by index; a chunk may be empty.

    Args:
        tokens: Of ``marked.text``, without start and end.
        marked: The text.
        slots: Which of them are an embedding's.
        window: Tokens that the text encoder reads at once, start and end included.

    Raises:
        PromptError: A concept's words, or an embedding, are longer than a chunk.
    """
    capacity = window - NUM_SPECIAL
    whole = {place for slot in slots for place in slot.tokens[1:]}
    starts = [start for start, _ in tokens]
    segments: list[range] = []
    done = 0
    for place in (*marked.read.breaks, None):
        end = len(tokens)
        if place is not None:
            end = next((i for i, start in enumerate(starts) if start >= place), end)
        segments.append(range(done, end))
        done = end
    if len(segments) > 1 and not segments[-1]:
        segments.pop()  # a break at the end begins nothing
    chunks: list[range] = []
    for segment in segments:
        rest = segment
        while len(rest) > capacity:
            cut = _cut(tokens, marked, rest, capacity, whole)
            if cut is None:
                raise PromptError(
                    too_long(tokens, marked, rest, capacity, [slot.tokens for slot in slots])
                )
            chunks.append(range(rest.start, cut))
            rest = range(cut, rest.stop)
        chunks.append(rest)
    return tuple(chunks)


def num_chunks(row: Row, tokenize: Tokenize, window: int) -> int:
    """Return how many chunks each text of ``row`` is padded to.

    Raises:
        CompositionError: The method cannot make this row, or its texts cannot be read.
        LongTextError: They are longer than the row's ``long_prompts`` allows, or ``MAX_CHUNKS``.
    """
    if _is_surely_short(row, window):
        return 1
    count = _Counter(row.words, tokenize, window)
    texts = (("prompt", _longest(row, count)), ("negative_prompt", negative_of(row)))
    return max(_checked_count(row, column, marked, count, window) for column, marked in texts)


class _Counter:
    """Counts the chunks and tokens of a row's texts, each once: variants may say the same."""

    def __init__(self, words: Sequence[EmbeddedWord], tokenize: Tokenize, window: int) -> None:
        self._words = words
        self._tokenize = tokenize
        self._window = window
        self._known: dict[tuple[PromptText, tuple[Span, ...]], tuple[int, int]] = {}

    def __call__(self, marked: MarkedPrompt) -> tuple[int, int]:
        known_as = marked.read, marked.together
        if known_as not in self._known:
            tokens, slots = embedded_tokens(self._tokenize, marked.read, self._words)
            num_chunks = len(chunks_of(tokens, marked, self._window, slots))
            self._known[known_as] = num_chunks, len(tokens)
        return self._known[known_as]


def _longest(row: Row, count: _Counter) -> MarkedPrompt:
    """Return the prompt of the variant that takes most chunks."""
    syntax = row.sampler.prompt_syntax
    variants = METHODS[row.method].variants(Mix.of(row))
    actives = list(dict.fromkeys(variant.triggers for variant in variants))
    [whole] = mark_prompts(row.prompt, row.concepts, [frozenset().union(*actives)], syntax)
    # No variant has more words than this one, and mostly it fits.
    if count(whole)[0] == 1:
        return whole
    prompts = mark_prompts(row.prompt, row.concepts, actives, syntax)
    return max(prompts, key=lambda marked: count(marked)[0])


def _checked_count(
    row: Row, column: str, marked: MarkedPrompt, counted: _Counter, window: int
) -> int:
    count, num_tokens = counted(marked)
    said = f"the {column.replace('_', ' ')} has {num_tokens} tokens, {count} chunks"
    if count > 1 and row.sampler.long_prompts == "refuse":
        raise LongTextError(
            column,
            f"{said}, and the text encoder reads {window - NUM_SPECIAL} tokens at once, got "
            f"{marked.text[:40]!r}...; shorten it, or set `long_prompts: chunk` under sampler",
        )
    if count > MAX_CHUNKS:
        raise LongTextError(column, f"{said}, more than {MAX_CHUNKS}; shorten it")
    return count


def negative_of(row: Row) -> MarkedPrompt:
    """Return the row's negative prompt as the text encoder gets it."""
    try:
        return MarkedPrompt(read_prompt(row.negative_prompt, row.sampler.prompt_syntax))
    except PromptError as error:
        raise PromptError(f"the negative prompt {error}") from None


def _is_surely_short(row: Row, window: int) -> bool:
    """Return whether all texts fit one chunk because each of their characters would."""
    if row.sampler.prompt_syntax != "plain" or row.words:
        return False
    triggers = "".join(f"{lora.trigger} " for lora in row.concepts if lora.trigger)
    longest = max(len(row.prompt) + len(triggers), len(row.negative_prompt))
    texts = (row.prompt, triggers, row.negative_prompt)
    return longest <= window - NUM_SPECIAL and all(map(str.isascii, texts))


def _cut(
    tokens: Sequence[Span],
    marked: MarkedPrompt,
    rest: range,
    capacity: int,
    whole: Collection[int],
) -> int | None:
    """Return the first token of the next chunk, at most ``capacity`` after the start of ``rest``.

    It is none of ``whole``. None if everything up to there must stay together.
    """
    last = rest.start + capacity
    together = marked.together
    nearest_comma = last - int(capacity * _COMMA_SHARE)
    between_words = within_word = None
    for place in range(last, rest.start, -1):
        if place < nearest_comma and between_words is not None:
            break
        start, end = tokens[place - 1]
        at = tokens[place][0]
        if place in whole or any(first < at < beyond for first, beyond in together):
            continue
        if place >= nearest_comma and marked.text[start:end] == ",":
            return place
        within_word = within_word or place
        if between_words is None and end < at:
            between_words = place
    return between_words or within_word
