"""Rows as they stand in files: Parquet, CSV and JSON lines, one at a time, with their line.

Nothing is judged here but whether a row can be read at all. A line that cannot is a problem among
the rows and the next line is read; null, NaN and an empty CSV cell all mean "not given".
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pyarrow import NativeFile

from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError, expand, open_stream
from manifests.places.place_names import split_options
from manifests.tables.guarded_parquet import open_batches
from manifests.tables.limits import counted_lines
from manifests.tables.parquet_rows import parquet_rows
from manifests.text.json_text import first_repeated, load_json
from manifests.text.problems import Problem
from manifests.text.text_rules import is_missing

MAX_LINE_BYTES = 16 * 1024**2

_TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_PACKED = ("", ".gz", ".bz2", ".zst")
_SUFFIXES = (".parquet", ".pq", *(kind + pack for kind in _TEXT_SUFFIXES for pack in _PACKED))


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """One row as it was read.

    Attributes:
        place: The file.
        line: 1-based line of a text file; row number of a Parquet file.
        values: What is given, by column.
        is_text: All values are texts because the format knows nothing else (CSV).
    """

    place: str
    line: int
    values: Mapping[str, Any]
    is_text: bool = False


def read_rows(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> Iterator[RawRow | Problem]:
    """Return the rows of a manifest in order, and a problem for each that cannot be read.

    Args:
        uri: A file, a folder or a glob, as an absolute path or URI.
        allowed: Where they may be; a link in a folder to a file elsewhere is a problem.
    """
    try:
        allowed.check(uri)
        files = expand(uri, suffixes=_SUFFIXES)
    except LocationError as error:
        yield Problem(place=uri, field="(file)", problem=str(error))
        return
    for file in files:
        try:
            allowed.check(file)
            yield from read_file(file)
        except LocationError as error:
            yield Problem(place=file, field="(file)", problem=str(error))


def read_file(file: str) -> Iterator[RawRow | Problem]:
    """Return the rows of one file as ``read_rows``; LocationError if it cannot be read."""
    name = split_options(file)[0].lower()
    for pack in _PACKED[1:]:
        name = name.removesuffix(pack)
    if name.endswith((".parquet", ".pq")):
        yield from _read_parquet(file)
    elif name.endswith((".csv", ".tsv")):
        yield from _read_csv(file)
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        yield from _read_json_lines(file)
    else:
        yield Problem(
            place=file,
            field="(file)",
            problem="is none of the formats read here; use .parquet, .csv or .jsonl",
        )


def _read_parquet(file: str) -> Iterator[RawRow | Problem]:
    with open_batches(file) as batches:
        twice = first_repeated(batches.schema.names)
        if twice is not None:
            yield Problem(
                place=file, field=twice, problem="is the name of two columns; names are unique"
            )
            return
        for line, values in enumerate(parquet_rows(batches), start=1):
            if isinstance(values, str):
                yield Problem(place=file, line=line, field="(row)", problem=values)
            else:
                yield RawRow(place=file, line=line, values=_given(values))


def _read_json_lines(file: str) -> Iterator[RawRow | Problem]:
    with open_stream(file) as source:
        for line, content in counted_lines(_lines(_buffered(source)), file=file):
            if len(content) > MAX_LINE_BYTES:
                problem = f"is longer than {MAX_LINE_BYTES:,} bytes; what follows is not read"
                yield Problem(place=file, line=line, field="(row)", problem=problem)
                return
            if line == 1:
                content = content.removeprefix(b"\xef\xbb\xbf")
            if content.isspace() or not content:
                continue
            yield _json_row(file, line, content)


def _json_row(file: str, line: int, content: bytes) -> RawRow | Problem:
    try:
        text = content.decode()
        values = load_json(text)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair fails here
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start}); save the file as UTF-8"
    except UnicodeEncodeError:
        problem = "holds half of a surrogate pair (\\ud800 to \\udfff); write the character itself"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:
        start = content[:60].decode(errors="replace").strip()
        problem = f"is not valid JSON ({error}), got {start!r}"
    else:
        if isinstance(values, dict):
            return RawRow(place=file, line=line, values=_given(cast("dict[str, Any]", values)))
        kind = "the start of a JSON array" if isinstance(values, list) else "no JSON object"
        problem = f"is {kind}; write one object per line"
    return Problem(place=file, line=line, field="(row)", problem=problem)


def _read_csv(file: str) -> Iterator[RawRow | Problem]:
    with open_stream(file) as source:
        stream = _buffered(source)
        if stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff")):
            problem = "is UTF-16 text; save it as UTF-8 (in Excel: 'CSV UTF-8')"
            yield Problem(place=file, field="(file)", problem=problem)
            return
        texts = _CsvLines(counted_lines(_lines(stream), file=file), file)
        header_text = next(texts, "").removeprefix("\ufeff")
        delimiter = max(",;\t", key=header_text.count)
        try:
            header = next(csv.reader([header_text], delimiter=delimiter), [])
        except csv.Error as error:
            problem = f"is not valid CSV ({error}); save the file again"
            yield Problem(place=file, line=1, field="(header)", problem=problem)
            return
        names = [name.strip() for name in header]
        if not names or len(set(names)) != len(names) or "" in names:
            problem = f"should name every column once, got {names!r}"
            yield Problem(place=file, line=1, field="(header)", problem=problem)
            return
        yield from _csv_rows(file, names, texts, csv.reader(texts, delimiter=delimiter))


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
        return content.decode("utf-8", "surrogateescape")

    def begin_row(self) -> None:
        """Count anew."""
        self._num_bytes = 0


def _csv_rows(
    file: str, names: list[str], texts: _CsvLines, rows: Any
) -> Iterator[RawRow | Problem]:
    while True:
        texts.begin_row()
        line = rows.line_num + 2
        try:
            cells: list[str] = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(
                place=file, line=line, field="(row)", problem=f"is not valid CSV ({error})"
            )
            continue
        if not any(cells):
            continue
        values = {name: cell for name, cell in zip(names, cells, strict=False) if cell != ""}
        if len(cells) != len(names):
            problem = (
                f"has {len(cells)} cells and the header has {len(names)}; "
                "put cells that hold the separator in double quotes"
            )
            yield Problem(
                place=file, line=line, row_id=values.get("row_id"), field="(row)", problem=problem
            )
        elif not "".join(cells).isascii() and not _is_unicode("".join(cells)):
            problem = "is not UTF-8; save the file as UTF-8"
            yield Problem(place=file, line=line, field="(row)", problem=problem)
        else:
            yield RawRow(place=file, line=line, values=values, is_text=True)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _buffered(source: NativeFile) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", source), buffer_size=1024**2)


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Return (1-based number, bytes) of every line; one that is too long comes in pieces."""
    line = 0
    while content := stream.readline(MAX_LINE_BYTES + 1):
        line += 1
        yield line, content


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not is_missing(value)}
