"""The rows of a CSV file, as they stand under its header.

A row that cannot be read is a problem and the next is read. Blank lines and blank cells beyond the
last column are what spreadsheets save around a table, and say nothing. A column without a name
holds an index, which is left out, or nothing; whatever else it holds is a problem.
"""

import csv
from collections.abc import Iterator

from manifests.places.locations import LocationError
from manifests.tables.csv_header import CsvHeader, CsvHeaderError, read_header
from manifests.tables.index_columns import is_row_number
from manifests.tables.limits import MAX_LINE_BYTES
from manifests.text.problems import Problem
from manifests.text.wording import shown

_NOT_UTF8 = "is not UTF-8; save the file as UTF-8 (in Excel: 'CSV UTF-8')"


def csv_rows(
    lines: Iterator[tuple[int, bytes]], *, file: str
) -> Iterator[tuple[int, dict[str, str]] | Problem]:
    """Yield the line of every row and its cells that are not empty, by column.

    Row numbers of a column without a name are under the name "".

    Args:
        lines: (1-based number, bytes) of every line.
        file: For problems.

    Raises:
        LocationError: Lines of one row are too long together.
    """
    texts = _CsvLines(lines, file)
    try:
        header = read_header(texts)
    except CsvHeaderError as error:
        yield Problem(place=file, line=error.line, field="(header)", problem=str(error))
        return
    if not _is_unicode("".join(header.names)):
        yield Problem(place=file, line=header.line, field="(header)", problem=_NOT_UTF8)
        return
    reported: set[int] = set()
    while True:
        texts.begin_row()
        line = header.lines_before + header.rows.line_num + 1
        try:
            cells: list[str] = next(header.rows)
        except StopIteration:
            return
        except csv.Error as error:
            text = f"is not valid CSV ({error})"
            yield Problem(place=file, line=line, field="(row)", problem=text)
            continue
        if not any(map(str.strip, cells)):
            continue
        for place in _stray_places(header, cells) if header.nameless else ():
            if place not in reported:
                reported.add(place)
                text = _nameless(place, line, cells[place])
                yield Problem(place=file, line=header.line, field="(header)", problem=text)
        values = {name: cell for name, cell in zip(header.names, cells, strict=False) if cell}
        problem = _row_problem(header, cells)
        if problem is None:
            yield line, values
            continue
        row_id = None if problem == _NOT_UTF8 else values.get("row_id")
        yield Problem(place=file, line=line, row_id=row_id, field="(row)", problem=problem)


def _stray_places(header: CsvHeader, cells: list[str]) -> Iterator[int]:
    """Yield where a cell without a name says more than the number of its row."""
    for number, place in enumerate(header.nameless):
        cell = cells[place] if place < len(cells) else ""
        is_leading = number == place
        if cell.strip() and not (is_leading and is_row_number(cell)):
            yield place


def _nameless(place: int, line: int, cell: str) -> str:
    return (
        f"gives column {place + 1} no name, and line {line} holds {shown(cell)} there; name the "
        "column or delete it (an index of pandas: to_csv(index=False))"
    )


def _row_problem(header: CsvHeader, cells: list[str]) -> str | None:
    """Return why the cells are no row."""
    if len(cells) < len(header.names):
        return _unequal(header, cells) + (
            "put cells that hold a line break in double quotes, and write a separator for each "
            "empty cell"
        )
    if len(cells) > header.width and any(map(str.strip, cells[header.width :])):
        return _unequal(header, cells) + "put cells that hold the separator in double quotes"
    return None if _is_unicode("".join(cells)) else _NOT_UTF8


def _unequal(header: CsvHeader, cells: list[str]) -> str:
    return f"has {len(cells)} cells and the header has {len(header.names)}; "


class _CsvLines(Iterator[str]):
    """The lines of a CSV file as texts; those of one row are counted together.

    A quote that is never closed makes one row of all that follows.
    """

    def __init__(self, lines: Iterator[tuple[int, bytes]], file: str) -> None:
        self._lines = lines
        self._file = file
        self._num_bytes = 0

    def __next__(self) -> str:
        line, content = next(self._lines)
        self._num_bytes += len(content)
        if self._num_bytes > MAX_LINE_BYTES:
            raise LocationError(
                f"{self._file}, line {line} belongs to a row of more than {MAX_LINE_BYTES:,} "
                "bytes; is there a quote that is not closed?"
            )
        # Bytes that are not UTF-8 stay visible as lone surrogates, and cost their row alone.
        text = content.decode("utf-8", "surrogateescape")
        return text.removeprefix("\ufeff") if line == 1 else text

    def begin_row(self) -> None:
        """Count anew."""
        self._num_bytes = 0


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
