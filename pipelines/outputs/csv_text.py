"""Values as cells of a CSV file that spreadsheets and data frames read alike, and safely.

A spreadsheet computes a cell that begins like a formula, whatever wrote it; so such a text gets an
apostrophe before it, which spreadsheets take for "this is text". A text that has apostrophes before
such a beginning gets one more, so that removing one always gives the text back. Numbers are left
alone. The file begins with UTF-8's mark, without which some spreadsheets read another alphabet.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence

MARK = b"\xef\xbb\xbf"

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_FIRST = frozenset("'=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows of values as lines of a CSV file."""
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="\r\n").writerows(map(_cells, rows))
    return sink.getvalue().encode(errors="backslashreplace")


def _cells(row: Sequence[object]) -> list[str]:
    return [cell(value) for value in row]


def cell(value: object) -> str:
    """Return a value of JSON as the text of its cell; nothing for null."""
    if value is None:
        return ""
    if type(value) is str and value[:1] not in _FIRST:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text
