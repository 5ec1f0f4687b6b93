r"""What the signs in a prompt mean: words to be read as they stand, or emphasis and chunks.

``weighted`` reads what A1111 reads (``parse_prompt_attention``): ``(cat)`` is 1.1, ``[cat]`` is
1 / 1.1, ``(cat:1.3)`` is 1.3, brackets multiply, ``\(`` is a bracket, ``BREAK`` begins a chunk. An
open bracket that is never closed counts to the end, a closing one alone is a character. ``plain``
takes only prompts that say the same to A1111 as they do word for word, so that nobody's emphasis is
read as words. What belongs elsewhere is refused by both: LoRAs are a column, wildcards are lists of
a sweep, and a prompt that changes over the steps is nothing that the sampler can make.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from clora_core.recipe.errors import PromptError
from clora_core.recipe.reading.text import PromptText

PromptSyntax = Literal["plain", "weighted"]

ROUND = 1.1
SQUARE = 1 / 1.1
MAX_WEIGHT = 10.0
MAX_OPEN = 64

SIGNS = r"[\\()\[\]{}<>]|__|--|\bBREAK\b|\bAND\b|embedding:"
"""What every text that says more than its words holds one of; RE2 reads it so, too, or finds more
(its words are ASCII)."""

_SIGNS = re.compile(SIGNS)
_SIGN_OR_WORDS = re.compile(r"\\[\\()\[\]]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
_LEFT_OVER_WEIGHT = re.compile(r":\s*[+-]?\d[\d.,]*\s*(?=,|$|[()\[\]])")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_ACTS = re.compile(r"\\.?|\(+[^()]*\)+|\[+[^\[\]]*\]+|[(\[]|\bBREAK\b")

_ELSEWHERE = (
    (
        re.compile(r"<(?:lora|lyco|locon):[^<>]*>"),
        "LoRAs are named in the column loras: take it out and name the LoRA there",
    ),
    (
        re.compile(r"<\w+:[^<>]*>"),
        "networks of this kind are not read: take it out",
    ),
    (
        re.compile(r"\{[^{}]*\}|[{}]"),
        "alternatives and placeholders are written out by `clora sweep`: write one of them, or "
        "make the rows with a sweep",
    ),
    (
        re.compile(r"__[A-Za-z0-9][\w\-/*.]*?__"),
        "wildcards are lists (`words`) of `clora sweep`: write the word, or make the rows with a "
        "sweep",
    ),
    (
        re.compile(r"\bAND\b"),
        "in capitals it stands between prompts that A1111 composes, which is not read: write 'and'",
    ),
    (
        re.compile(r"\bembedding:[\w\-.]+"),
        "an embedding is a LoRA of the catalog: name it in the column loras, and write its name "
        "without 'embedding:'",
    ),
    (
        re.compile(r"(?<!\S)--[A-Za-z]\w*"),
        "options of other tools are not read from prompts: write columns such as negative_prompt, "
        "width and seed, or name the file as prompt_file of a sweep",
    ),
)


def one_line_prompt(text: str) -> str:
    """Return ``text`` with line breaks and tabs as spaces, as every text encoder reads them."""
    return re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)


@lru_cache(maxsize=8192)
def read_prompt(text: str, syntax: PromptSyntax) -> PromptText:
    """Return what a prompt, a negative prompt or a trigger says.

    Raises:
        PromptError: It holds what is not read under ``syntax``; the message names the first such
            piece and the way out.
    """
    if _SIGNS.search(text) is None:
        return PromptText(text)
    for pattern, way_out in _ELSEWHERE:
        found = pattern.search(text)
        if found is not None:
            raise PromptError(f"holds {_shown(found[0])}; {way_out}")
    if syntax == "weighted":
        return _weighted(text)
    if not _says_more(text):
        return PromptText(text)
    found = _ACTS.search(text)
    piece = found[0] if found else text
    what = {"B": "the start of a chunk", "\\": "an escape"}.get(piece[0], "emphasis")
    raise PromptError(
        f"holds {_shown(piece)}, which A1111, Forge and ComfyUI read as {what} and this row as "
        "words; set `prompt_syntax: weighted` under sampler, where it acts (and \\( is a bracket), "
        "or take it out"
    )


def reads_as_written(text: str, syntax: PromptSyntax) -> bool:
    """Return whether ``text`` can be read and says its words and nothing more."""
    if _SIGNS.search(text) is None:
        return True
    try:
        return read_prompt(text, syntax) == PromptText(text)
    except PromptError:
        return False


def syntax_acts(syntax: PromptSyntax, texts: Iterable[str]) -> bool:
    """Return whether one of ``texts`` says more under ``syntax`` than its words do."""
    return syntax == "weighted" and any(_says_more(text) for text in texts)


def _says_more(text: str) -> bool:
    try:
        return read_prompt(text, "weighted") != PromptText(text)
    except PromptError:
        return True


def escaped(words: str, syntax: PromptSyntax) -> str:
    """Return a prompt that is read as ``words``."""
    return re.sub(r"[\\()\[\]]", r"\\\g<0>", words) if syntax == "weighted" else words


def written(words: str, syntax: PromptSyntax) -> str | None:
    """Return how a text says ``words`` without emphasis, None if no text can under ``syntax``."""
    text = escaped(words, syntax)
    try:
        return text if read_prompt(text, syntax) == PromptText(words) else None
    except PromptError:
        return None


def _weighted(text: str) -> PromptText:
    pieces: list[PromptText] = []
    opened: list[tuple[str, int]] = []  # each open bracket, and the first piece in it

    def close(sign: str, weight: float) -> None:
        place = max(index for index, (which, _) in enumerate(opened) if which == sign)
        _, first = opened.pop(place)
        pieces[first:] = [each.times(weight) for each in pieces[first:]]

    for match in _SIGN_OR_WORDS.finditer(text):
        piece, number = match[0], match[1]
        within = {sign for sign, _ in opened}
        if opened and opened[-1][0] == "[" and (piece[0] == ":" or "|" in piece):
            raise PromptError(
                f"holds {_shown(text[text.index('[') :])}, a prompt that changes over the steps, "
                "which is not read; write one text, or \\[ for a bracket"
            )
        slip = _LEFT_OVER_WEIGHT.match(text, match.start()) if "(" in within else None
        if slip is not None and number is None:
            raise PromptError(
                f"holds {_shown(slip[0].strip())} in a bracket, where it is no weight; write it "
                "with a point and at the end of a bracket, as in (cat:1.3)"
            )
        if piece[0] == "\\":
            pieces.append(PromptText(piece[1:]))
        elif piece in ("(", "["):
            if len(opened) == MAX_OPEN:
                raise PromptError(
                    f"opens more than {MAX_OPEN} brackets; write weights as (cat:1.3)"
                )
            opened.append((piece, len(pieces)))
        elif number is not None and "(" in within:
            close("(", _weight(number, piece))
        elif piece == ")" and "(" in within:
            close("(", ROUND)
        elif piece == "]" and "[" in within:
            close("[", SQUARE)
        else:
            pieces += _in_chunks(piece)
    while opened:
        close(opened[-1][0], ROUND if opened[-1][0] == "(" else SQUARE)
    return _joined(pieces)


def _in_chunks(run: str) -> list[PromptText]:
    """Return a run of words, with an empty text that has a break wherever a chunk begins."""
    first, *others = _BREAK.split(run)
    pieces = [PromptText(first)]
    for words in others:
        pieces += [PromptText("", breaks=(0,)), PromptText(words)]
    return pieces


def _joined(pieces: list[PromptText]) -> PromptText:
    """Return all pieces as one text.

    Raises:
        PromptError: A weight is too large.
    """
    text = PromptText("")
    for piece in pieces:
        if piece.words or piece.breaks:
            text += PromptText(" ") + piece if _are_words_apart(text, piece) else piece
    largest = max(map(abs, text.weights), default=1.0)
    if largest > MAX_WEIGHT:
        raise PromptError(
            f"has brackets that multiply to a weight of {largest:.3g}; write at most {MAX_WEIGHT:g}"
        )
    return text


def _are_words_apart(text: PromptText, piece: PromptText) -> bool:
    """Return whether a space is missing: chunks and different weights do not share a word."""
    if not text.words or text.words[-1].isspace() or piece.words[:1].isspace():
        return False
    return bool(piece.breaks) or text.weight_of_each()[-1] != piece.weight_of_each()[0]


def _weight(number: str, token: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = None
    if weight is None or abs(weight) > MAX_WEIGHT:
        raise PromptError(
            f"holds the weight {_shown(token.strip(': )'))}; write one number from "
            f"{-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, as in (cat:1.3)"
        )
    return weight


def _shown(piece: str) -> str:
    return repr(piece if len(piece) <= 60 else f"{piece[:57]}...")
