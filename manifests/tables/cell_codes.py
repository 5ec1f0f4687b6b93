"""Numbers that tell the cells of an Arrow column apart, without a Python value for each.

Rows of a manifest share most of what they say, and often say it in lists and structs. Each cell
gets a small number, and equal numbers are equal cells; so one cell of each number is looked at.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NO_CELL = -1
"""The code of null."""

_TEXTS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
    pa.types.is_large_binary, pa.types.is_binary_view,
)  # fmt: skip
_LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view,
    pa.types.is_fixed_size_list,
)  # fmt: skip
_PLAIN = (
    pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
    pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration, *_TEXTS,
)  # fmt: skip


def has_codes(kind: pa.DataType) -> bool:
    """Return whether cells of this type have codes: types that tables hold all have."""
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_struct(kind):
        return all(has_codes(kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_map(kind):
        return has_codes(kind.key_type) and has_codes(kind.item_type)
    if any(is_kind(kind) for is_kind in _LISTS):
        return has_codes(kind.value_type)
    return pa.types.is_null(kind) or any(is_kind(kind) for is_kind in _PLAIN)


def cell_codes(cells: pa.Array) -> np.ndarray:
    """Return the code of each cell; cells with one code have one value.

    Args:
        cells: Of a type that ``has_codes``.
    """
    kind = cells.type
    if pa.types.is_null(kind):
        return np.full(len(cells), NO_CELL, np.int64)
    if pa.types.is_struct(kind):
        fields = [cell_codes(field) for field in cast("pa.StructArray", cells).flatten()]
        return _where_given(cells, joint_codes(fields, len(cells)))
    if pa.types.is_map(kind):
        cells = cells.cast(pa.list_(pa.struct([("key", kind.key_type), ("item", kind.item_type)])))
        return cell_codes(cells)
    if any(is_kind(kind) for is_kind in _LISTS):
        return _list_codes(cells)
    if pa.types.is_floating(kind):  # by their bits, as 0.0 and -0.0 differ in Python
        cells = cells.view({16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width])
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        cells = cells.view(pa.binary_view()).cast(pa.large_binary())
    return _encoded(cells)


def joint_codes(columns: Sequence[np.ndarray], num_rows: int) -> np.ndarray:
    """Return one code for the codes that each row has in some columns."""
    joint = np.zeros(num_rows, np.int64)
    for codes in columns:
        low = codes.astype(np.int64) + 1
        joint = joint * (int(low.max(initial=0)) + 1) + low
        joint = np.unique(joint, return_inverse=True)[1].astype(np.int64)
    return joint


def _list_codes(cells: Any) -> np.ndarray:
    lengths = pc.call_function("list_value_length", [cells])
    lengths = np.asarray(pc.call_function("coalesce", [lengths, pa.scalar(0, lengths.type)]))
    values = cell_codes(pc.call_function("list_flatten", [cells])).astype(np.int64)
    ends = np.cumsum(lengths, dtype=np.int64) * values.itemsize
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    # A list is the text that its values' codes write.
    texts = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(cells),
        [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(values))],
    )
    return _where_given(cells, _encoded(texts))


def _encoded(cells: pa.Array) -> np.ndarray:
    encoded = cast("pa.DictionaryArray", cells.dictionary_encode())
    codes = pc.call_function("coalesce", [encoded.indices, pa.scalar(NO_CELL, pa.int32())])
    return np.asarray(codes).astype(np.int64)


def _where_given(cells: pa.Array, codes: np.ndarray) -> np.ndarray:
    return np.where(np.asarray(cells.is_valid()), codes, NO_CELL)
