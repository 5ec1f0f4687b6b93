"""Words that a LoRA file brings along as vectors (textual inversion), found in texts by name.

An embedding's name is read wherever it is written as whole words, in any case, as A1111 does: it
looks for the tokens of the name, and CLIP's tokenizer knows no capitals. Of two names that begin at
one place the longer is read. ``folded_name`` alone says what "in any case" means.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

from clora_core.recipe.reading.text import PromptText


@dataclass(frozen=True, slots=True)
class EmbeddedWord:
    """A name that stands for vectors in place of the tokenizer's tokens.

    Attributes:
        name: As texts write it.
        num_vectors: Tokens that it is, each with a vector of its own.
    """

    name: str
    num_vectors: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: words for the tokenizer, or an embedding's name.

    Attributes:
        start: First character.
        end: Character after the last.
        word: Index of the embedding that stands here; None for words.
    """

    start: int
    end: int
    word: int | None = None


def folded_name(name: str) -> str:
    """Return a name without what texts do not keep apart: letters' case and the width of gaps.

    Unlike ``str.casefold`` it never makes two characters of one, so that what is found in a folded
    text stands at the same place in the text.
    """
    return " ".join(_folded(name).split())


def same_name(one: str, other: str) -> bool:
    """Return whether a text could not keep two embeddings apart."""
    return folded_name(one) == folded_name(other)


def pieces_of(read: PromptText, words: Sequence[EmbeddedWord]) -> tuple[Piece, ...]:
    """Return the parts of a text, in order; empty ones are left out.

    Args:
        read: The text. A name does not reach over a break.
        words: Embeddings that are known in it.
    """
    text = read.words
    if not words:
        return (Piece(0, len(text)),) if text else ()
    pieces: list[Piece] = []
    done = 0
    folded = [folded_name(word.name) for word in words]
    names, folded_text = _names(tuple(folded)), _folded(text)
    parts = pairwise((0, *read.breaks, len(text)))
    for match in chain.from_iterable(names.finditer(folded_text, *part) for part in parts):
        start, end = match.span()
        if done < start:
            pieces.append(Piece(done, start))
        pieces.append(Piece(start, end, folded.index(folded_name(match.group()))))
        done = end
    if done < len(text):
        pieces.append(Piece(done, len(text)))
    return tuple(pieces)


def _folded(text: str) -> str:
    """Return ``text`` with each character folded to one."""
    return text.lower() if text.isascii() else "".join(map(_folded_character, text))


@lru_cache(maxsize=4096)
def _folded_character(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character.lower()[0]


@lru_cache(maxsize=1024)
def _names(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return what matches each of the folded ``names`` as whole words, the longest first."""
    return re.compile("|".join(map(_name, sorted(names, key=len, reverse=True))))


def _name(name: str) -> str:
    # Signs at a name's ends are no words, and part it from its neighbours themselves.
    first, last = (r"(?<!\w)" if name[0].isalnum() or name[0] == "_" else "",
                   r"(?!\w)" if name[-1].isalnum() or name[-1] == "_" else "")  # fmt: skip
    inner = r"\s+".join(re.escape(part) for part in name.split())
    return f"{first}(?:{inner}){last}"
