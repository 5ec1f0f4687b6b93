"""The header of a CSV file: what parts its cells, what its columns are called, where rows begin.

Before the header a spreadsheet may leave blank lines, and Excel a line ``sep=;``. Blank columns at
the right end are no columns.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from manifests.text.json_text import first_repeated

_DELIMITERS = ",;\t|"
_SEP_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_USUAL = frozenset(
    {"prompt", "loras", "seed", "method", "row_id", "negative_prompt", "width", "height", "sampler",
     "base_model", "item", "scene", "name", "uri", "subject"}
)  # fmt: skip
"""Columns of manifests, axes and catalogs, by which the delimiter of a header is recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvHeader:
    """How the rows of a CSV file are read.

    Attributes:
        names: Of the columns up to the last that has one; "" for one without.
        nameless: Places of the columns without a name, those at the right end included.
        width: Cells of the header.
        line: 1-based line of the header.
        lines_before: Lines before the header, which the reader of ``rows`` never saw.
        rows: The ``csv.reader`` that gives the rows.
    """

    names: tuple[str, ...]
    nameless: tuple[int, ...]
    width: int
    line: int
    lines_before: int
    rows: Any


class CsvHeaderError(ValueError):
    """No header that can be used; ``line`` is 1-based."""

    def __init__(self, message: str, line: int) -> None:
        self.line = line
        super().__init__(message)


def read_header(texts: Iterator[str]) -> CsvHeader:
    """Take the header from the lines of a CSV file, and leave the rows to ``CsvHeader.rows``.

    Args:
        texts: Lines with their ends; the first without a byte order mark.

    Raises:
        CsvHeaderError: The header cannot be read, names no column, or names one twice.
    """
    lines_before, delimiter = 0, None
    first = next(texts, "")
    sep_line = _SEP_LINE.fullmatch(first)
    if sep_line is not None:
        delimiter = sep_line.group(1)
        if delimiter not in _DELIMITERS:
            text = f"names {delimiter!r} as the separator; save the file with , ; | or a tab"
            raise CsvHeaderError(text, 1)
        lines_before, first = 1, next(texts, "")
    while first and not first.strip(f'{_DELIMITERS}" \r\n'):
        lines_before, first = lines_before + 1, next(texts, "")
    line = lines_before + 1
    if not first:
        text = "names no column; the first line of a CSV file does, as in prompt,loras,seed"
        raise CsvHeaderError(text, line)
    rows = csv.reader(chain([first], texts), delimiter=delimiter or _delimiter(first))
    try:
        cells = [cell.strip() for cell in next(rows)]
    except csv.Error as error:
        raise CsvHeaderError(f"is not valid CSV ({error}); save the file again", line) from error
    names = cells[: max(place for place, cell in enumerate(cells, start=1) if cell)]
    twice = first_repeated(name for name in names if name)
    if twice is not None:
        text = f"names {twice[:100]!r} twice; names are unique: rename or delete one of the columns"
        raise CsvHeaderError(text, line)
    return CsvHeader(
        names=tuple(names),
        nameless=tuple(place for place, cell in enumerate(cells) if not cell),
        width=len(cells),
        line=line,
        lines_before=lines_before,
        rows=rows,
    )


def _delimiter(header: str) -> str:
    """Return what parts the header into the most usual names, and of these into the most cells."""

    def judged(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return sum(cell.strip().lower() in _USUAL for cell in cells), len(cells)

    return max(_DELIMITERS, key=judged)
