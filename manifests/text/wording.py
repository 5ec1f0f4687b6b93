"""How a wrong value is told: the rule, the value, and the name that was probably meant.

Pydantic finds the mistakes; here its findings become the sentences of ``manifests.text.problems``.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import ValidationError

from clora_core.recipe.errors import CloraError

MAX_VALUE_LENGTH = 80
MAX_FINDINGS = 50
"""About one value; a hostile one has a million wrong fields."""
MAX_CANDIDATES = 1000
"""Names that one is compared with, which takes a few microseconds each."""
WHOLE = "(all)"
"""The field of a finding about several fields together."""


class SettingsError(CloraError):
    """Settings that don't hold; ``findings`` are (field, sentence) pairs, one a mistake."""

    def __init__(self, findings: Sequence[tuple[str, str]]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{field}: {text}" for field, text in findings))


def shown(value: object) -> str:
    """Return ``value`` as it stands in a message: its repr, cut in the middle if long."""
    text = repr(value[:200] if isinstance(value, str | bytes) else value)
    if len(text) <= MAX_VALUE_LENGTH:
        return text
    half = MAX_VALUE_LENGTH // 2
    return f"{text[:half]} ... {text[-half:]}"


def first_lines(lines: Sequence[str], most: int, *, more: str = "more") -> list[str]:
    """Return the first ``most`` lines, and one that counts the rest."""
    num_more = len(lines) - most
    return [*lines[:most], *([f"... and {num_more:,} {more}"] if num_more > 0 else [])]


def listed(names: Sequence[str], most: int) -> str:
    """Return the first ``most`` names in one line, and how many more there are."""
    num_more = len(names) - most
    return ", ".join(names[:most]) + (f" and {num_more:,} more" if num_more > 0 else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` looks like, or None."""
    by_lower = {candidate.lower(): candidate for candidate in islice(known, MAX_CANDIDATES)}
    found = get_close_matches(name.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the way out of an unknown name: the nearest known one, else some of them."""
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near!r}?"
    if not known:
        return "none are known"
    first = ", ".join(sorted(known[:MAX_CANDIDATES])[:12])
    return f"known: {first}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def within(section: str, findings: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what was found about a section's fields as it is said of the whole."""
    return [(section if field == WHOLE else f"{section}.{field}", text) for field, text in findings]


def sentences(
    error: ValidationError,
    *,
    known: Sequence[str] | Mapping[str, Sequence[str]] = (),
    given: Mapping[str, Any] | None = None,
) -> list[tuple[str, str]]:
    """Return (field, sentence) of every finding in ``error``.

    Args:
        error: What pydantic raised.
        known: Names that an unknown one may have been meant as; by section ("" for the top) where
            there are sections.
        given: The values that were checked; a missing field is looked for among their names.
    """
    found: list[tuple[str, str]] = []
    details = error.errors(include_url=False)
    for detail in details[:MAX_FINDINGS]:
        path = ".".join(str(part) for part in detail["loc"]) or WHOLE
        name = str(detail["loc"][-1]) if detail["loc"] else ""
        section = path.rpartition(".")[0]
        names = known.get(section, ()) if isinstance(known, Mapping) else known
        if detail["type"] == "missing":
            others = [key for key in given or () if key not in names]
            near = nearest(name, others)
            hint = f"there is {near!r}: did you mean {name!r}?" if near else "add it"
            found.append((path, f"is required and not given; {hint}"))
        elif detail["type"] == "extra_forbidden":
            found.append((path, f"is not a known setting; {did_you_mean(name, names)}"))
        else:
            message = detail["msg"].removeprefix("Value error, ")
            found.append((path, f"{message}, got {shown(detail['input'])}"))
    if len(details) > MAX_FINDINGS:
        found.append((WHOLE, f"and {len(details) - MAX_FINDINGS:,} more mistakes like these"))
    return found
