"""How many windows of the text encoder a row's texts fill, counted before anything is started."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from clora_core.recipe.errors import CompositionError
from clora_core.recipe.prompts.chunks import LongTextError, num_chunks
from clora_core.recipe.prompts.marked import Span
from clora_core.recipe.row import Row


class TextReader(Protocol):
    """A base model's tokenizer, and what its text encoders' files say of them.

    Attributes:
        window: Tokens that are read at once, start and end included.
        num_layers: Layers of the text encoder that has fewest.
    """

    window: int
    num_layers: int

    def tokenize(self, text: str) -> Sequence[Span]:
        """Return the characters of each of a text's tokens, without start and end."""
        ...


@runtime_checkable
class WordReader(TextReader, Protocol):
    """A tokenizer that may know that spaces part tokens, so that words can be read one by one."""

    def word_tokens(self, words: Sequence[str]) -> Sequence[int] | None:
        """Return how many tokens each word is; None if a text may have others than its words.

        Args:
            words: Without spaces.
        """
        ...


def text_chunks(row: Row, reader: TextReader) -> tuple[int | None, list[tuple[str, str]]]:
    """Return how many chunks the row's texts have, and (column, sentence) of why they cannot be.

    Args:
        row: A row that the sampler could make as far as its method and prompt go.
        reader: Of the row's base model.
    """
    skip = row.sampler.clip_skip
    if skip is not None and skip > reader.num_layers:
        text = f"should be at most {reader.num_layers}, the layers of the base model's text encoder"
        return None, [("sampler.clip_skip", f"{text}, got {skip}")]
    try:
        return num_chunks(row, reader.tokenize, reader.window), []
    except LongTextError as error:
        return None, [(error.column, str(error))]
    except CompositionError as error:
        return None, [("prompt", str(error))]
