"""Alphas by layer name, as peft reads them: the first pattern that ends a layer's name decides.

A pattern is a regular expression, and nearly always a plain name. Plain names are looked up here
exactly as peft would match them (``.`` stands for any character), at a cost that does not grow with
their number. Real expressions are a stranger's: only those are tried that cannot run for hours, and
only on layers that a model has.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, cast

MAX_PATTERNS = 5000
MAX_WILD_PATTERNS = 16
MAX_PATTERN_CHARACTERS = 200
MAX_SHAPES = 100
"""Ways in which plain patterns of one length place their dots; a hostile file has thousands."""

_PLAIN = re.compile(r"\^?[\w.\-]+\$?")
_FEW_QUANTIFIERS = re.compile(r"[^*+?{(]*(?:[*+?][^*+?{(]*){0,2}")


_Given = tuple[int, float]
"""A pattern's place among the others, and the alpha that it gives."""

_Shape = tuple[bool, tuple[int, ...]]
"""Whether a pattern stands for the whole name, and where its dots are."""

_ByText = dict[str, _Given]
"""By the pattern's text."""


def as_alpha(value: object) -> float | None:
    """Return a JSON value as an alpha, None if it is no number; JSON's integers have no end."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def cost_problem(
    patterns: Collection[str], *, said: str = "its metadata sets alphas"
) -> str | None:
    """Return why ``patterns`` cannot be tried, as the end of a sentence; None if they can.

    Args:
        patterns: As they are written.
        said: What they do and where they stand, to begin with.
    """
    if len(patterns) > MAX_PATTERNS:
        return (
            f"{said} by {len(patterns):,} patterns; at most {MAX_PATTERNS:,} are read: save "
            "the LoRA with alpha tensors"
        )
    wild = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
    for pattern in wild:
        try:
            re.compile(pattern)
            is_cheap = bool(_FEW_QUANTIFIERS.fullmatch(pattern))
        except (re.error, OverflowError, RecursionError):
            is_cheap = False
        if not is_cheap or len(pattern) > MAX_PATTERN_CHARACTERS or len(wild) > MAX_WILD_PATTERNS:
            return (
                f"{said} by the pattern {pattern[:100]!r}; plain layer names and "
                f"up to {MAX_WILD_PATTERNS} patterns with at most two of * + ? are read: save the "
                "LoRA with an alpha for each layer"
            )
    return None


class AlphaPatterns:
    """The patterns of one component of a model.

    Args:
        patterns: ``alpha_pattern`` as the settings have it; anything else than a mapping has none.
        are_tried: Try what is no plain name, too; only for patterns without a ``cost_problem``.

    Attributes:
        rules: (pattern, alpha) in order, of those with a number.
    """

    def __init__(self, patterns: object, *, are_tried: bool) -> None:
        given = cast("dict[str, Any]", patterns) if isinstance(patterns, dict) else {}
        alphas = ((name, as_alpha(value)) for name, value in given.items())
        self.rules = tuple((name, alpha) for name, alpha in alphas if alpha is not None)
        self._alphas = tuple(dict.fromkeys(alpha for _, alpha in self.rules))
        self._are_tried = are_tried
        self._open: list[tuple[_Given, re.Pattern[str] | None]] = []
        self._plain: dict[int, dict[_Shape, _ByText]] = {}
        for place, (name, alpha) in enumerate(self.rules):
            self._add(name, (place, alpha))

    def _add(self, name: str, given: _Given) -> None:
        text = name.removeprefix("^").removesuffix("$")
        shapes = self._plain.setdefault(len(text), {})
        shape = (name.startswith("^"), tuple(i for i, char in enumerate(text) if char == "."))
        is_plain = _PLAIN.fullmatch(name) and (shape in shapes or len(shapes) < MAX_SHAPES)
        if is_plain:
            shapes.setdefault(shape, {}).setdefault(text, given)
        else:
            expression = re.compile(rf"(.*\.)?({name})$") if self._are_tried else None
            self._open.append((given, expression))

    def possible(self, layer: str | None) -> Iterator[float | None]:
        """Yield the alphas that ``layer`` may have, None last if it may have none of them.

        Where patterns are tried it is a single one.

        Args:
            layer: Its name with dots, without the component; None if it isn't known.
        """
        if layer is None:
            yield from self._alphas
            yield None
            return
        plain = self._first_plain(layer)
        for (place, alpha), expression in self._open:
            if plain is not None and place > plain[0]:
                break
            if expression is None:
                yield alpha
            elif expression.match(layer):
                yield alpha
                return
        yield None if plain is None else plain[1]

    def _first_plain(self, layer: str) -> _Given | None:
        starts = [0, *(i + 1 for i, char in enumerate(layer) if char == ".")]
        found = [
            by_text[text]
            for start in starts
            for (is_whole, dots), by_text in self._plain.get(len(layer) - start, {}).items()
            if not (is_whole and start) and (text := _with_dots(layer[start:], dots)) in by_text
        ]
        return min(found, default=None)


def _with_dots(text: str, places: tuple[int, ...]) -> str:
    """Return ``text`` with dots at ``places``, where a pattern takes any character."""
    characters = list(text)
    for place in places:
        characters[place] = "."
    return "".join(characters)
