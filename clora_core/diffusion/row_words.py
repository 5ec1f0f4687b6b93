"""The embeddings of one row's LoRAs with their vectors, as its texts are encoded."""

from collections.abc import Callable
from dataclasses import dataclass

from clora_core.lora.factors import LoraFactors
from clora_core.lora.word_vectors import WordVectors
from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.reading.embedded import EmbeddedWord
from clora_core.recipe.row import Lora, Row


@dataclass(frozen=True)
class RowWords:
    """What a row's texts may name besides words.

    Attributes:
        words: Names, in the order of the row's LoRAs.
        vectors: Of each of them.
        source: LoRA's digest, and number in its file, of each of them.
    """

    words: tuple[EmbeddedWord, ...] = ()
    vectors: tuple[WordVectors, ...] = ()
    source: tuple[tuple[str, int], ...] = ()


NO_WORDS = RowWords()


def row_words(row: Row, factors_of: Callable[[Lora], LoraFactors]) -> RowWords:
    """Return the embeddings of ``row``.

    Args:
        row: The row.
        factors_of: Reads a LoRA; asked for those with embeddings alone.

    Raises:
        LoraFileError: As ``check_words``.
    """
    if not row.words:
        return NO_WORDS
    vectors: list[WordVectors] = []
    source: list[tuple[str, int]] = []
    for lora in row.loras:
        if lora.words:
            factors = factors_of(lora)
            check_words(lora, factors)
            vectors += factors.words
            source += ((lora.digest, number) for number in range(len(lora.words)))
    return RowWords(row.words, tuple(vectors), tuple(source))


def check_words(lora: Lora, factors: LoraFactors) -> None:
    """Refuse a LoRA whose row does not say which embeddings its file holds.

    Raises:
        LoraFileError: Their number or their vectors are others.
    """
    said = [word.num_vectors for word in lora.words]
    held = [word.num_vectors for word in factors.words]
    if said != held:
        raise LoraFileError(
            f"{lora.uri} holds {len(held)} embedding(s) of {held} vectors and the row says {said} "
            f"for LoRA {lora.name!r}; check the row with this file, or give its Lora the words"
        )
