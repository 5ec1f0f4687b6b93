"""The stamp of a data card, which is another one whenever the rows are.

``datasets`` keeps what it has loaded under the folder's name and a hash of the card's ``configs``
as they are written; it asks neither where the folder is nor what files a pattern finds there.
Without a stamp every output of one name would give the rows that were loaded first. A config's
``description`` is part of the hash and of nothing else, so that is where the stamp is.

A run that begins puts a stamp of its own in place, and another one every so often, because rows are
committed before it can write the card again, and it may be killed.
"""

import hashlib
import json
from collections.abc import Iterable

from pipelines.ledger.ledger import Ledger

_FENCE = "---"
_CONFIG = "- config_name: "
_STAMP = "  description: "
_DIGITS = 32


def content_stamp(ledger: Ledger, references: Iterable[tuple[str, int]]) -> str:
    """Return the stamp of what is committed.

    Args:
        ledger: Of the output.
        references: (name, bytes) of the committed units of references in it, in any order.
    """
    text = json.dumps([ledger.content_sha256, sorted(references)])
    return f"content {hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def writer_stamp(run_id: str, num_units: int = 0) -> str:
    """Return the stamp of a card whose rows ``run_id`` is changing, or was when it ended.

    Args:
        run_id: The run.
        num_units: Of which it has committed so many.
    """
    return f"changed by {run_id}, {num_units} units"


def stamped(card: str, stamp: str) -> str:
    """Return the card with every config of its front matter stamped, and no other stamp left."""
    lines = card.split("\n")
    end = _front_matter_end(lines)
    head: list[str] = []
    for line in lines[:end]:
        if not line.startswith(_STAMP):
            head.append(line)
        if line.startswith(_CONFIG):
            head.append(_STAMP + stamp)
    return "\n".join([*head, *lines[end:]])


def stamp_of(card: str) -> str | None:
    """Return the stamp of a card; None if it has none, or several."""
    lines = card.split("\n")
    head = lines[: _front_matter_end(lines)]
    found = {line.removeprefix(_STAMP) for line in head if line.startswith(_STAMP)}
    return found.pop() if len(found) == 1 else None


def _front_matter_end(lines: list[str]) -> int:
    """Return the number of lines of the front matter; 0 if there is none."""
    if lines[0] != _FENCE or _FENCE not in lines[1:]:
        return 0
    return lines.index(_FENCE, 1)
