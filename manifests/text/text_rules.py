"""What a text may look like: prompts, names and other words that people write.

Control characters in a prompt are a broken export, and in a name they break logs and paths; half
of a surrogate pair cannot be written anywhere. So they are refused by position.
"""

import math
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from clora_core.recipe.reading.syntax import one_line_prompt

MAX_PROMPT_CHARACTERS = 4000
MAX_NAME_CHARACTERS = 200

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Marks that take no space or turn the direction of writing, so that a text looks like another."""
_SEPARATORS = re.compile(r"[;|:,\[\]{}\"]")


def _without_control_characters(text: str) -> str:
    found = _CONTROL.search(text)
    if found is not None:
        raise ValueError(
            f"should hold no control characters; there is {found.group()!r} at position "
            f"{found.start()}: remove it"
        )
    return text


def one_line(text: str, *, max_characters: int) -> str:
    """Return a stranger's text as it may be shown: one line, no control or unseen characters."""
    plain = _UNSEEN.sub("", _CONTROL.sub(" ", text[: 4 * max_characters]))
    plain = " ".join(plain.split())
    return plain if len(plain) <= max_characters else f"{plain[: max_characters - 3]}..."


def printable(text: str) -> str:
    """Return ``text`` with escapes for what a terminal would obey, or a person would not see."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _not_blank(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("should not be empty")
    return text


def _without_separators(text: str) -> str:
    found = _SEPARATORS.search(text)
    if found is not None or text != text.strip():
        raise ValueError(
            "should be a name without ; | : , brackets, quotes or outer spaces: "
            "rows write lists of names and weights with these"
        )
    return text


AnyText = Annotated[
    str,
    Field(max_length=MAX_PROMPT_CHARACTERS, strict=True),
    AfterValidator(one_line_prompt),
    AfterValidator(_without_control_characters),
]
"""A text that may be empty, such as a negative prompt. Line breaks and tabs are spaces."""

Prompt = Annotated[AnyText, AfterValidator(_not_blank)]

ShortText = Annotated[
    str,
    Field(max_length=1000, strict=True),
    AfterValidator(_without_control_characters),
    AfterValidator(_not_blank),
]

RowId = Annotated[
    str,
    Field(max_length=MAX_NAME_CHARACTERS, strict=True),
    AfterValidator(_without_control_characters),
    AfterValidator(_not_blank),
]

LoraName = Annotated[RowId, AfterValidator(_without_separators)]


def is_missing(value: object) -> bool:
    """Return whether a cell says nothing: null, or the NaN that tables have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))
