"""Alphas by layer name, as peft reads them: the first pattern that ends a layer's name decides.

A pattern is a regular expression, and nearly always a plain name. Plain names are looked up here
exactly as peft would match them (``.`` stands for any character), at a cost that does not grow with
their number. What a real expression matches is left open, to be tried when the weights are loaded.
"""

import re
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["AlphaPatterns", "as_alpha"]

MAX_SHAPES = 100
"""Ways in which plain patterns of one length place their dots; a hostile file has thousands."""

_PLAIN = re.compile(r"\^?[\w.\-]+\$?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """An alpha that a pattern gives, and the pattern's place among the others."""

    place: int
    alpha: float


_Shape = tuple[bool, tuple[int, ...]]
"""Whether a pattern stands for the whole name, and where its dots are."""

_ByText = dict[str, Given]
"""By the pattern's text."""


def as_alpha(value: object) -> float | None:
    """Return a JSON value as an alpha, None if it is no number; JSON's integers have no end."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


class AlphaPatterns:
    """The patterns of one component of a model.

    Args:
        patterns: ``alpha_pattern`` as the settings have it; anything else than a mapping has none.

    Attributes:
        rules: (pattern, alpha) in order, of those with a number.
    """

    def __init__(self, patterns: object) -> None:
        given = cast("dict[str, Any]", patterns) if isinstance(patterns, dict) else {}
        alphas = ((name, as_alpha(value)) for name, value in given.items())
        self.rules = tuple((name, alpha) for name, alpha in alphas if alpha is not None)
        self._open: list[Given] = []
        self._plain: dict[int, dict[_Shape, _ByText]] = {}
        for place, (name, alpha) in enumerate(self.rules):
            self._add(name, Given(place=place, alpha=alpha))

    def _add(self, name: str, given: Given) -> None:
        text = name.removeprefix("^").removesuffix("$")
        shapes = self._plain.setdefault(len(text), {})
        shape = (name.startswith("^"), tuple(i for i, char in enumerate(text) if char == "."))
        is_plain = _PLAIN.fullmatch(name) and (shape in shapes or len(shapes) < MAX_SHAPES)
        if is_plain:
            shapes.setdefault(shape, {}).setdefault(text, given)
        else:
            self._open.append(given)

    def possible(self, layer: str) -> tuple[tuple[float, ...], bool]:
        """Return the alphas that ``layer`` may have, and whether it surely has one of them.

        The alphas are those of the patterns that may match and, last, of the plain one that does.

        Args:
            layer: Its name with dots, without the component.
        """
        plain = self._first_plain(layer)
        if plain is None:
            return tuple(given.alpha for given in self._open), False
        before = (given.alpha for given in self._open if given.place < plain.place)
        return (*before, plain.alpha), True

    def _first_plain(self, layer: str) -> Given | None:
        starts = [0, *(i + 1 for i, char in enumerate(layer) if char == ".")]
        found = [
            by_text[text]
            for start in starts
            for (is_whole, dots), by_text in self._plain.get(len(layer) - start, {}).items()
            if not (is_whole and start) and (text := _with_dots(layer[start:], dots)) in by_text
        ]
        return min(found, key=lambda given: given.place, default=None)


def _with_dots(text: str, places: tuple[int, ...]) -> str:
    """Return ``text`` with dots at ``places``, where a pattern takes any character."""
    characters = list(text)
    for place in places:
        characters[place] = "."
    return "".join(characters)
