"""Which known name an unknown one was meant as.

Names are compared without case and separators, so ``numSteps``, ``num-steps`` and ``NUM STEPS`` are
one. After that come the plural, another tool's name, a slip of a letter or two, and last a mere
resemblance, which is good for a hint and for nothing else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from functools import lru_cache
from itertools import islice

from clora_core.recipe.other_names import OTHER_NAMES

MAX_CANDIDATES = 1000
"""Names that one is compared with, which takes some ten microseconds each."""
MAX_HINTS = 3
"""Of names that are equally near; a catalog may number hundreds."""
MAX_NAME_CHARACTERS = 100
_MIN_RESEMBLANCE = 0.55
_LONG_CHARACTERS = 6
"""Names of so many letters may have two of them wrong."""


class Likeness(IntEnum):
    """How a name is like a known one, the surest first."""

    CASE = 0
    PLURAL = 1
    OTHER_TOOL = 2
    SLIP = 3
    RESEMBLANCE = 4


@dataclass(frozen=True, slots=True)
class Meant:
    """What a name may have been meant as.

    Attributes:
        names: Known names that it is equally like; rarely more than one.
        likeness: How it is like them.
    """

    names: tuple[str, ...]
    likeness: Likeness


def meant_as(name: str, known: Iterable[str], *, may_guess: bool = True) -> Meant | None:
    """Return the known names that ``name`` was probably meant as; None if it is like none.

    Args:
        name: As it is given.
        known: The names that there are.
        may_guess: Whether a mere resemblance counts, which takes most of the time to find.
    """
    candidates = tuple(islice(known, MAX_CANDIDATES))
    return _meant_as(name[:MAX_NAME_CHARACTERS], candidates, may_guess)


@lru_cache(maxsize=4096)
def _meant_as(name: str, known: tuple[str, ...], may_guess: bool) -> Meant | None:
    given = folded(name)
    by_letters = {folded(each): each for each in known}
    if given in by_letters:
        return Meant((by_letters[given],), Likeness.CASE)
    singular = _singular(given)
    names = tuple(each for letters, each in by_letters.items() if _singular(letters) == singular)
    if names:
        return Meant(names, Likeness.PLURAL)
    fields = _by_other_name().get(given) or _by_other_name().get(singular) or ()
    names = tuple(field for field in fields if by_letters.get(folded(field)) == field)
    if names:
        return Meant(names, Likeness.OTHER_TOOL)
    slips = {letters: num_slips(given, letters) for letters in by_letters}
    fewest = min(slips.values(), default=0)
    names = tuple(
        by_letters[letters]
        for letters, count in slips.items()
        if count == fewest and count <= (2 if len(letters) >= _LONG_CHARACTERS else 1)
    )
    if names:
        return Meant(names, Likeness.SLIP)
    if not may_guess:
        return None
    words = {each.lower(): each for each in by_letters.values()}
    like = get_close_matches(name.lower(), words, 1, _MIN_RESEMBLANCE)
    return Meant((words[like[0]],), Likeness.RESEMBLANCE) if like else None


def name_hint(name: str, known: Iterable[str]) -> str | None:
    """Return the question which known name was meant; None if ``name`` is like none."""
    meant = meant_as(name, known)
    return None if meant is None else f"did you mean {one_of(meant.names[:MAX_HINTS])}?"


def one_of(names: Iterable[str]) -> str:
    """Return the names as a choice: ``'a' or 'b'``."""
    return " or ".join(map(repr, names))


def folded(name: str) -> str:
    """Return the letters and digits of ``name`` in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())


def num_slips(one: str, other: str, *, most: int = 2) -> int:
    """Return how many slips part two names: letters added, left out, wrong, or two swapped.

    Args:
        one: A name.
        other: Another.
        most: Where counting ends; more slips are ``most + 1``.
    """
    letters, others = set(one), set(other)
    if max(abs(len(one) - len(other)), len(letters - others), len(others - letters)) > most:
        return most + 1  # each slip adds or takes one letter at most
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        row = [i]
        for j, target in enumerate(other, start=1):
            count = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == target:
                count = min(count, before[j - 2] + 1)
            row.append(count)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


def _singular(letters: str) -> str:
    return letters[:-1] if letters.endswith("s") and len(letters) > 2 else letters


@lru_cache(maxsize=1)
def _by_other_name() -> Mapping[str, tuple[str, ...]]:
    """Return the fields that each name of another tool may mean, by the name's letters."""
    fields: dict[str, tuple[str, ...]] = {}
    for field, names in OTHER_NAMES.items():
        for letters in dict.fromkeys(map(folded, names)):
            fields[letters] = (*fields.get(letters, ()), field)
    return fields
