"""The rows of a Parquet file as Python values, a bounded number of bytes at a time.

A Parquet file writes a repeated text once, so ten kilobytes can stand for a text of megabytes in
each of millions of rows. Texts come as references to what is written, and what they stand for
is measured before any of it is written out.
"""

from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

MAX_PIECE_BYTES = 64 * 1024**2
"""Of rows that are Python values at once; a row alone may be as large."""

VALUE_BYTES = 64
"""What a Python value takes beside its text, about."""

_LISTS = (
    pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray
    | pa.ListViewArray | pa.LargeListViewArray
)  # fmt: skip


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch until each piece is small, or a single row."""
    if len(batch) <= 1 or not is_large(batch):
        yield batch
        return
    middle = len(batch) // 2
    yield from pieces(batch.slice(0, middle))
    yield from pieces(batch.slice(middle))


def is_large(batch: pa.RecordBatch) -> bool:
    """Return whether the rows would take too many bytes as Python values."""
    return _num_bytes(batch) > MAX_PIECE_BYTES


def row_values(piece: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """Return the values of every row, or why it cannot be read, in order.

    Args:
        piece: From ``pieces``.

    Raises:
        ArrowException: Python has nothing for the type of a column.
    """
    if len(piece) == 1 and is_large(piece):
        return [f"stands for more than {MAX_PIECE_BYTES:,} bytes; shorten its texts and lists"]
    try:
        return cast("list[dict[str, Any] | str]", _written_out(piece).to_pylist())
    except (ValueError, OverflowError):
        return [_row(piece.slice(index, 1)) for index in range(len(piece))]


def _row(row: pa.RecordBatch) -> dict[str, Any] | str:
    """Return the values of a batch of one row, or why Python cannot hold them."""
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return "holds text that is not UTF-8"
    except (ValueError, OverflowError) as error:
        return f"holds a value that cannot be read ({error})"


def _written_out(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with its columns of texts as such, which become Python values faster."""
    columns = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _num_bytes(values: pa.RecordBatch | pa.Array) -> int:
    """Return about how many bytes the values take in Python, texts written out."""
    if isinstance(values, pa.RecordBatch):
        return sum(_num_bytes(column) for column in values.columns)
    own = VALUE_BYTES * len(values)
    if isinstance(values, pa.DictionaryArray):
        return own + _text_bytes(values.dictionary, values.indices)
    if isinstance(values, pa.StructArray):
        return own + sum(_num_bytes(field) for field in values.flatten())
    if isinstance(values, pa.MapArray) and len(values):
        start, end = values.offsets[0].as_py(), values.offsets[-1].as_py()
        children = (values.keys, values.items)
        return own + sum(_num_bytes(child.slice(start, end - start)) for child in children)
    if isinstance(values, _LISTS):
        return own + _num_bytes(values.flatten())
    return own + _text_bytes(values)


def _text_bytes(values: pa.Array, indices: pa.Array | None = None) -> int:
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        values = values.view(pa.binary_view()).cast(pa.large_binary())
    kind = values.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind):
        return 0
    lengths = pc.call_function("binary_length", [values])
    if indices is not None:
        lengths = lengths.cast(pa.int64()).take(indices)
    return pc.call_function("sum", [lengths]).as_py() or 0
