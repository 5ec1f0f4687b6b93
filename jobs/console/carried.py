"""The columns of a manifest that nothing reads, as a line of what a job would make."""

from collections.abc import Sequence

from manifests.text.text_rules import printable
from manifests.text.wording import listed

MAX_LISTED = 8
MAX_CHARACTERS = 40


def carried_described(columns: Sequence[str]) -> str:
    """Return the names of the columns in one line, and what becomes of them."""
    short = [
        name if len(name) <= MAX_CHARACTERS else f"{name[: MAX_CHARACTERS - 3]}..."
        for name in map(printable, columns)
    ]
    return f"{listed(short, MAX_LISTED)}; not read, and written to the output as they are"
