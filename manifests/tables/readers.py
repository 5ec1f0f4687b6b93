"""Rows as they stand in files: Parquet, CSV and JSON lines, one at a time, with their line.

Nothing is judged here but whether a row can be read at all. A line that cannot is a problem among
the rows and the next line is read; null, NaN and an empty CSV cell all mean "not given".
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError, expand, open_stream
from manifests.places.place_names import split_options
from manifests.tables.csv_rows import csv_rows
from manifests.tables.guarded_parquet import open_batches
from manifests.tables.index_columns import index_names, is_row_number
from manifests.tables.limits import MAX_LINE_BYTES, counted_lines
from manifests.tables.parquet_rows import parquet_rows
from manifests.text.json_text import first_repeated, load_json
from manifests.text.problems import Problem
from manifests.text.text_rules import is_missing

_TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_PACKED = ("", ".gz", ".bz2", ".zst")
_SUFFIXES = (".parquet", ".pq", *(kind + pack for kind in _TEXT_SUFFIXES for pack in _PACKED))
_SHORT_FLOATS = {pa.float16(): 2**11, pa.float32(): 2**24}


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """One row as it was read.

    Attributes:
        place: The file.
        line: 1-based line of a text file; row number of a Parquet file.
        values: What is given, by column; texts alone where the format knows nothing else (CSV).
        left_out: Columns whose cell is a row number that a data frame's index left (see
            ``index_columns``); they are not among the values.
        exact_to: Columns of short floats, with the first number from which on they skip whole
            numbers.
    """

    place: str
    line: int
    values: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    exact_to: Mapping[str, int] = field(default_factory=dict[str, int])


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
        exact_to = {
            column.name: _SHORT_FLOATS[column.type]
            for column in batches.schema
            if column.type in _SHORT_FLOATS
        }
        for line, values in enumerate(parquet_rows(batches), start=1):
            if isinstance(values, str):
                yield Problem(place=file, line=line, field="(row)", problem=values)
            else:
                yield _raw_row(file, line, _given(values), exact_to=exact_to)


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
            return _raw_row(file, line, _given(cast("dict[str, Any]", values)))
        kind = "the start of a JSON array" if isinstance(values, list) else "no JSON object"
        problem = f"is {kind}; write one object per line (pandas: orient='records', lines=True)"
    return Problem(place=file, line=line, field="(row)", problem=problem)


def _read_csv(file: str) -> Iterator[RawRow | Problem]:
    with open_stream(file) as source:
        stream = _buffered(source)
        if stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff")):
            problem = "is UTF-16 text; save it as UTF-8 (in Excel: 'CSV UTF-8')"
            yield Problem(place=file, field="(file)", problem=problem)
            return
        for row in csv_rows(counted_lines(_lines(stream), file=file), file=file):
            yield row if isinstance(row, Problem) else _raw_row(file, *row)


def _buffered(source: pa.NativeFile) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", source), buffer_size=1024**2)


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Return (1-based number, bytes) of every line; one that is too long comes in pieces."""
    line = 0
    while content := stream.readline(MAX_LINE_BYTES + 1):
        line += 1
        yield line, content


def _raw_row(file: str, line: int, values: dict[str, Any], **more: Any) -> RawRow:
    """Return the row of what is given, without row numbers that an index left."""
    names = index_names(tuple(values))
    index = tuple(name for name in names if is_row_number(values[name])) if names else ()
    for name in index:
        del values[name]
    return RawRow(place=file, line=line, values=values, left_out=index, **more)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not is_missing(value)}
