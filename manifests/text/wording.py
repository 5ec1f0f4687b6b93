"""How a wrong value is told: the rule, the value, and the name that was probably meant.

Pydantic finds the mistakes; here its findings become the sentences of ``manifests.text.problems``.
"""

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from clora_core.recipe.errors import CloraError
from clora_core.recipe.near_names import MAX_CANDIDATES, name_hint

MAX_VALUE_LENGTH = 80
MAX_FINDINGS = 50
"""About one value; a hostile one has a million wrong fields."""
MAX_NAMES = 12
"""Of all that are known, in one sentence."""
Findings = list[tuple[str, str]]
"""(Field, sentence), one a mistake."""
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


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the way out of an unknown name: the nearest known one, else some of them."""
    return name_hint(name, known) or known_names(known)


def known_names(known: Sequence[str]) -> str:
    """Return some of the names that there are, for one that is like none of them."""
    if not known:
        return "none are known"
    first = ", ".join(sorted(known[:MAX_CANDIDATES])[:MAX_NAMES])
    num_more = len(known) - MAX_NAMES
    return f"known: {first}" + (f" and {num_more} more" if num_more > 0 else "")


def within(section: str, findings: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what was found about a section's fields as it is said of the whole."""
    return [(section if field == WHOLE else f"{section}.{field}", text) for field, text in findings]


def sentences(
    error: ValidationError, *, unless: Callable[[Sequence[str | int]], bool] | None = None
) -> Findings:
    """Return (field, sentence) of every finding in ``error``.

    Args:
        error: What pydantic raised.
        unless: Returns whether nothing more needs saying of a path.
    """
    found: Findings = []
    details = [
        detail
        for detail in error.errors(include_url=False)
        if unless is None or not unless(detail["loc"])
    ]
    for detail in details[:MAX_FINDINGS]:
        path = ".".join(str(part) for part in detail["loc"]) or WHOLE
        if detail["type"] == "missing":
            found.append((path, "is required and not given; add it"))
        elif detail["type"] == "extra_forbidden":
            found.append((path, "is not a known setting; take it out"))
        else:
            message = detail["msg"].removeprefix("Value error, ")
            found.append((path, f"{message}, got {shown(detail['input'])}"))
    if len(details) > MAX_FINDINGS:
        found.append((WHOLE, f"and {len(details) - MAX_FINDINGS:,} more mistakes like these"))
    return found
