"""Rows as they stand in files: Parquet, CSV and JSON lines, one at a time, with their line.

Nothing is judged here but whether a row can be read at all. A line that cannot is a problem among
the rows and the next line is read; null, NaN and an empty CSV cell all mean "not given".
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import pyarrow as pa

from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError, expand, open_stream
from manifests.places.place_names import split_options
from manifests.tables.csv_rows import csv_rows
from manifests.tables.guarded_parquet import open_batches
from manifests.tables.limits import MAX_LINE_BYTES, counted_lines
from manifests.tables.parquet_rows import pieces
from manifests.tables.raw_rows import RawRow, RawTable, given, raw_row
from manifests.text.json_text import first_repeated, load_json
from manifests.text.problems import Problem

_TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_PACKED = ("", ".gz", ".bz2", ".zst")
_SUFFIXES = (".parquet", ".pq", *(kind + pack for kind in _TEXT_SUFFIXES for pack in _PACKED))
_ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 16 * 1024**2
"""Of the lines that rows are read from before they are passed on."""

_SHORT_FLOATS = {pa.float16(): 2**11, pa.float32(): 2**24}


def read_rows(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> Iterator[RawRow | Problem]:
    """Return the rows of a manifest in order, and a problem for each that cannot be read.

    Args:
        uri: A file, a folder or a glob, as an absolute path or URI.
        allowed: Where they may be; a link in a folder to a file elsewhere is a problem.
    """
    for file in manifest_files(uri, allowed=allowed):
        if isinstance(file, Problem):
            yield file
            continue
        try:
            yield from read_file(file)
        except LocationError as error:
            yield Problem(place=file, field="(file)", problem=str(error))


def manifest_files(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> Iterator[str | Problem]:
    """Return the files of a manifest in order, and a problem for each that may not be read."""
    try:
        allowed.check(uri)
        files = expand(uri, suffixes=_SUFFIXES)
    except LocationError as error:
        yield Problem(place=uri, field="(file)", problem=str(error))
        return
    for file in files:
        try:
            allowed.check(file)
        except LocationError as error:
            yield Problem(place=file, field="(file)", problem=str(error))
        else:
            yield file


def read_file(file: str) -> Iterator[RawRow | Problem]:
    """Return the rows of one file as ``read_rows``; LocationError if it cannot be read."""
    for rows in read_tables(file):
        yield from rows.rows() if isinstance(rows, RawTable) else rows


def read_tables(
    file: str, *, groups: range | None = None, first_line: int = 1
) -> Iterator[RawTable | Sequence[RawRow | Problem]]:
    """Return the rows of one file as they come, some thousand at a time.

    Args:
        file: Absolute path or URI.
        groups: Row groups of a Parquet file that are read; all if None.
        first_line: Row number of the first row of these.

    Raises:
        LocationError: The file cannot be read; rows before the damage come first.
    """
    kind = format_of(file)
    if kind == "parquet":
        yield from _read_parquet(file, groups, first_line)
    elif kind is not None:
        yield from _some_at_a_time(_read_csv if kind == "csv" else _read_json_lines, file)
    else:
        yield [
            Problem(
                place=file,
                field="(file)",
                problem="is none of the formats read here; use .parquet, .csv or .jsonl",
            )
        ]


def format_of(file: str) -> Literal["parquet", "csv", "jsonl"] | None:
    """Return the format that the name of a file says; None if it is none that is read."""
    name = split_options(file)[0].lower()
    for pack in _PACKED[1:]:
        name = name.removesuffix(pack)
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    if name.endswith((".csv", ".tsv")):
        return "csv"
    return "jsonl" if name.endswith((".jsonl", ".ndjson", ".json")) else None


def _read_parquet(
    file: str, groups: range | None, line: int
) -> Iterator[RawTable | Sequence[RawRow | Problem]]:
    with open_batches(file, groups=groups) as batches:
        twice = first_repeated(batches.schema.names)
        if twice is not None:
            problem = "is the name of two columns; names are unique"
            yield [Problem(place=file, field=twice, problem=problem)]
            return
        exact_to = {
            column.name: _SHORT_FLOATS[column.type]
            for column in batches.schema
            if column.type in _SHORT_FLOATS
        }
        for batch in batches:
            for piece in pieces(batch):
                yield RawTable(place=file, first_line=line, batch=piece, exact_to=exact_to)
                line += len(piece)


def _some_at_a_time(
    read: "Callable[[str, _Lines], Iterator[RawRow | Problem]]", file: str
) -> Iterator[Sequence[RawRow | Problem]]:
    lines = _Lines()
    rows: list[RawRow | Problem] = []
    taken = 0
    try:
        for row in read(file, lines):
            rows.append(row)
            if len(rows) >= _ROWS_AT_ONCE or lines.num_bytes - taken >= _BYTES_AT_ONCE:
                yield rows
                rows, taken = [], lines.num_bytes
    except LocationError:
        yield rows
        raise
    yield rows


class _Lines:
    """The lines of a text file, their bytes counted as they come."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def of(self, stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
        """Return (1-based number, bytes) of every line; one that is too long comes in pieces."""
        line = 0
        while content := stream.readline(MAX_LINE_BYTES + 1):
            line += 1
            self.num_bytes += len(content)
            yield line, content


def _read_json_lines(file: str, lines: _Lines) -> Iterator[RawRow | Problem]:
    with open_stream(file) as source:
        for line, content in counted_lines(lines.of(_buffered(source)), file=file):
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
            return raw_row(file, line, given(cast("dict[str, Any]", values)))
        kind = "the start of a JSON array" if isinstance(values, list) else "no JSON object"
        problem = f"is {kind}; write one object per line (pandas: orient='records', lines=True)"
    return Problem(place=file, line=line, field="(row)", problem=problem)


def _read_csv(file: str, lines: _Lines) -> Iterator[RawRow | Problem]:
    with open_stream(file) as source:
        stream = _buffered(source)
        if stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff")):
            problem = "is UTF-16 text; save it as UTF-8 (in Excel: 'CSV UTF-8')"
            yield Problem(place=file, field="(file)", problem=problem)
            return
        for row in csv_rows(counted_lines(lines.of(stream), file=file), file=file):
            yield row if isinstance(row, Problem) else raw_row(file, *row)


def _buffered(source: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", source), buffer_size=1024**2)
