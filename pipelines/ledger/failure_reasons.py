"""Why rows failed, for people: each reason once, with how many rows and which."""

from collections.abc import Iterable, Mapping
from typing import Any

from manifests.text.text_rules import one_line
from manifests.text.wording import listed

MAX_REASONS = 10
MAX_IDS = 3
_MAX_ID_CHARACTERS = 60
_MAX_MESSAGE_CHARACTERS = 300


def reason_lines(
    errors: Iterable[Mapping[str, Any]], *, rest: str, most: int = MAX_REASONS
) -> list[str]:
    """Return a line for each reason, the most frequent first.

    Args:
        errors: The last failure of each row, as rows of ``schemas.ERRORS``.
        rest: Where the reasons are that are not listed, as the end of a sentence.
        most: Reasons that are listed.
    """
    ids_by_reason: dict[tuple[str, str, str], list[str]] = {}
    for error in errors:
        reason = (str(error["stage"]), str(error["error"]), str(error["message"]))
        ids_by_reason.setdefault(reason, []).append(str(error["row_id"]))
    ordered = sorted(ids_by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [
        f"  {len(ids):,} x {stage}, {name}: "
        f"{one_line(message, max_characters=_MAX_MESSAGE_CHARACTERS)} ({_rows(ids)})"
        for (stage, name, message), ids in ordered[:most]
    ]
    num_more = len(ordered) - most
    if num_more > 0:
        lines.append(f"  ... and {num_more:,} more reason(s); {rest}")
    return lines


def _rows(ids: list[str]) -> str:
    named = [one_line(name, max_characters=_MAX_ID_CHARACTERS) for name in sorted(ids)]
    return f"{'row' if len(ids) == 1 else 'rows'} {listed(named, MAX_IDS)}"
