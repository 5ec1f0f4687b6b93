"""One Parquet file as an Arrow IPC stream on stdout.

Run as ``python -m manifests.tables.parquet_child FILE [FIRST_GROUP NUM_GROUPS]``, or with
``--groups`` for a stream that says how many rows each row group has.

``guarded_parquet`` starts this process for a file from outside. Arrow may abort on a damaged file,
so all of Arrow's Parquet code runs here, and what leaves is checked. An error that has a sentence
goes to stderr as the last line, a JSON object, and the exit code is ``HANDLED``.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":
    # Arrow does without numpy, which takes half of the time that this process needs to start.
    sys.modules["numpy"] = None  # pyright: ignore[reportArgumentType]

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.places.locations import LocationError, StoreAwayError, open_file
from manifests.tables.limits import check_parquet_size

HANDLED = 65
"""Exit code of an error whose sentence is on stderr."""

BATCH_ROWS = 4096


def stream_file(file: str, sink: BinaryIO, *, groups: range | None = None) -> None:
    """Write the record batches of a Parquet file as an Arrow IPC stream, each when it is read.

    Top-level texts are dictionaries, so a text that the file repeats is sent once.

    Args:
        file: Absolute path or URI.
        sink: Where the stream goes.
        groups: Row groups that are read; all if None.

    Raises:
        LocationError: The file cannot be read, or says that it holds too much. The stream holds
            what was read before.
    """
    with open_file(file) as source:
        table = _opened(source, file=file)
        schema = pa.schema([_plain_field(field) for field in table.schema_arrow])
        with pa.ipc.new_stream(sink, schema) as stream:
            for batch in _batches(table, groups):
                stream.write_batch(batch if batch.schema.equals(schema) else batch.cast(schema))
                sink.flush()


def stream_groups(file: str, sink: BinaryIO) -> None:
    """Write how many rows each row group of a Parquet file has, as an Arrow IPC stream.

    Raises:
        LocationError: As ``stream_file``.
    """
    with open_file(file) as source:
        metadata = _opened(source, file=file).metadata
        groups = range(metadata.num_row_groups)
        sizes = pa.array([metadata.row_group(group).num_rows for group in groups], pa.int64())
        batch = pa.RecordBatch.from_arrays([sizes], names=["num_rows"])
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        sink.flush()


def _opened(source: pa.NativeFile, *, file: str) -> pq.ParquetFile:
    """Return the file with its footer read and judged, and nothing else."""
    try:
        table = pq.ParquetFile(source)
    except UnicodeDecodeError as error:
        raise LocationError(
            f"{file} has the name of a column that is not UTF-8; write the file again"
        ) from error
    check_parquet_size(table.metadata, file=file)
    columns = [table.schema.column(index) for index in range(len(table.schema.names))]
    # Not those within lists and structs: Arrow cannot read these so across row groups.
    texts = [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY"
        and column.logical_type.type in ("STRING", "NONE")
        and column.path == column.name
    ]
    return pq.ParquetFile(source, metadata=table.metadata, read_dictionary=texts, pre_buffer=False)


def _batches(table: pq.ParquetFile, groups: range | None) -> Iterator[pa.RecordBatch]:
    chosen = None if groups is None else list(groups)
    for read in table.iter_batches(BATCH_ROWS, row_groups=chosen, use_threads=False):
        columns = [
            _with_used_texts(column) if isinstance(column, pa.DictionaryArray) else column
            for column in read.columns
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=read.schema)
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            # A text that is not UTF-8 costs its row alone, later. Offsets and indices must be
            # right before values are looked at.
            for column in batch.columns:
                column.view(_mapped(column.type, _as_bytes)).validate(full=True)
        yield batch


def _with_used_texts(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return the column without texts that it does not use.

    Arrow gives each batch all texts of the row group so far, which may be a million. Their order
    stays, because a stream repeats no dictionary that is as the last one was.
    """
    if len(column.dictionary) <= len(column):
        return column
    import pyarrow.compute as pc  # takes a third of this process's start, and few files need it

    used = column.indices.drop_null().unique()
    used = used.take(pc.call_function("sort_indices", [used]))
    places = pc.call_function("index_in", [column.indices], pc.SetLookupOptions(value_set=used))
    return pa.DictionaryArray.from_arrays(
        places.cast(column.type.index_type),
        column.dictionary.take(used),
        ordered=column.type.ordered,
    )


def _plain_field(field: pa.Field) -> pa.Field:
    """Return the field without metadata, which could name a type of the process that receives it.

    Ray's type for Python objects, for one, unpickles its values. Types that Arrow knows itself
    stay, unless they hold other fields.
    """
    return pa.field(field.name, _mapped(field.type, lambda kind: kind), field.nullable)


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _as_bytes(kind.storage_type)
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    return pa.binary_view() if pa.types.is_string_view(kind) else kind


def _mapped(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return the type with its leaves replaced and no metadata on its fields."""

    def field(inner: pa.Field) -> pa.Field:
        return pa.field(inner.name, _mapped(inner.type, leaf), inner.nullable)

    if isinstance(kind, pa.BaseExtensionType) and kind.storage_type.num_fields:
        return _mapped(kind.storage_type, leaf)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _mapped(kind.value_type, leaf), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(field(kind.key_field), field(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(field(kind.value_field), kind.list_size)
    for is_kind, made in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(kind):
            return made(field(kind.value_field))
    return leaf(kind)


def _main(file: str, *part: str) -> int:
    """Return the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is expected, a core file is not
    with suppress(OSError):  # where memory runs out, Linux ends this process and not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        with os.fdopen(1, "wb", closefd=False) as sink:
            if part == ("--groups",):
                stream_groups(file, sink)
            else:
                first, count = map(int, part) if part else (0, None)
                groups = None if count is None else range(first, first + count)
                stream_file(file, sink, groups=groups)
    except (LocationError, StoreAwayError) as error:
        problem, is_away = str(error), isinstance(error, StoreAwayError)
    except UnicodeDecodeError as error:
        problem, is_away = f"{file} cannot be read: {error}; write the file again", False
    else:
        return 0
    said = json.dumps({"problem": problem, "is_away": is_away})
    print(said, file=sys.stderr, flush=True)
    return HANDLED


if __name__ == "__main__":
    # Threads of Arrow that outlive the interpreter may abort the process.
    os._exit(_main(*sys.argv[1:]))
