"""A manifest's rows in little memory: columns for what differs, one value for what many share.

A million rows as Python objects take gigabytes; most of that is said again and again, because rows
share their LoRAs, settings and sizes. Here a row is a few short texts in Arrow columns and a number
that stands for the rest, and becomes a ``Row`` again when somebody looks at it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, overload

import pyarrow as pa

from clora_core.recipe.row import Row

_ROWS_PER_CHUNK = 8192
_OWN = ("key", "row_id", "prompt", "negative_prompt", "seed", "carried_json")
_OWN_SCHEMA = pa.schema(
    [(name, pa.int64() if name == "seed" else pa.large_string()) for name in _OWN]
    + [("shared", pa.int32())]
)
_SHARED = (
    "base_model_digest", "loras", "method", "width", "height", "text_chunks", "sampler", "remarks",
)  # fmt: skip
_own_values, _shared_values = attrgetter(*_OWN), attrgetter(*_SHARED)


class PackedRows(Sequence[Row]):
    """An immutable sequence of rows.

    Args:
        rows: In the order of the manifest; taken one at a time.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        numbers: dict[tuple[Any, ...], int] = {}
        values = (
            (*_own_values(row), numbers.setdefault(_shared_values(row), len(numbers)))
            for row in rows
        )
        self._chunks: list[pa.RecordBatch] = []
        while chunk := list(islice(values, _ROWS_PER_CHUNK)):
            columns = [list(column) for column in zip(*chunk, strict=True)]
            self._chunks.append(
                pa.RecordBatch.from_pydict(
                    dict(zip(_OWN_SCHEMA.names, columns, strict=True)), schema=_OWN_SCHEMA
                )
            )
        self._shared = [dict(zip(_SHARED, shared, strict=True)) for shared in numbers]
        self._length = sum(chunk.num_rows for chunk in self._chunks)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        for chunk in self._chunks:
            columns = [column.to_pylist() for column in chunk.columns]
            yield from map(self._row, *columns)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedRows": ...
    def __getitem__(self, index: int | slice) -> "Row | PackedRows":
        if isinstance(index, slice):
            wanted = range(self._length)[index]
            return self if wanted == range(self._length) else PackedRows(self[i] for i in wanted)
        place = range(self._length)[index]
        chunk = self._chunks[place // _ROWS_PER_CHUNK]
        within = place % _ROWS_PER_CHUNK
        return self._row(*(column[within].as_py() for column in chunk.columns))

    def _row(self, *values: Any) -> Row:
        *own, number = values
        return Row(**dict(zip(_OWN, own, strict=True)), **self._shared[number])
