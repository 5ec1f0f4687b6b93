"""A manifest's rows in little memory: columns for what differs, one value for what many share.

A million rows as Python objects take gigabytes; most of that is said again and again, because rows
share their LoRAs, settings and sizes. Here a row is a few short texts in Arrow columns and a number
that stands for the rest, and becomes a ``ResolvedRow`` again when somebody looks at it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import pyarrow as pa

from manifests.resolved import ResolvedLora, ResolvedRow

__all__ = ["RowStore"]

_ROWS_PER_CHUNK = 8192
_OWN = ("key", "row_id", "prompt", "negative_prompt", "seed", "carried_json")
_OWN_SCHEMA = pa.schema(
    [(name, pa.int64() if name == "seed" else pa.large_string()) for name in _OWN]
    + [("shared", pa.int32())]
)

_Shared = tuple[str, tuple[ResolvedLora, ...], str, int, int, str]
"""Base model, LoRAs, method, width, height, sampler settings."""


class RowStore(Sequence[ResolvedRow]):
    """An immutable sequence of rows.

    Args:
        rows: In the order of the manifest; taken one at a time.
    """

    def __init__(self, rows: Iterable[ResolvedRow]) -> None:
        self._chunks: list[pa.RecordBatch] = []
        self._shared: list[_Shared] = []
        self._length = 0
        numbers: dict[_Shared, int] = {}
        columns: dict[str, list[Any]] = {name: [] for name in _OWN_SCHEMA.names}
        for row in rows:
            shared = (
                row.base_model_digest,
                row.loras,
                row.method,
                row.width,
                row.height,
                row.sampler_json,
            )
            number = numbers.setdefault(shared, len(self._shared))
            if number == len(self._shared):
                self._shared.append(shared)
            for name in _OWN:
                columns[name].append(getattr(row, name))
            columns["shared"].append(number)
            self._length += 1
            if self._length % _ROWS_PER_CHUNK == 0:
                self._close_chunk(columns)
        if columns["shared"]:
            self._close_chunk(columns)

    def _close_chunk(self, columns: dict[str, list[Any]]) -> None:
        self._chunks.append(pa.RecordBatch.from_pydict(columns, schema=_OWN_SCHEMA))
        for values in columns.values():
            values.clear()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ResolvedRow]:
        for chunk in self._chunks:
            columns = [column.to_pylist() for column in chunk.columns]
            for values in zip(*columns, strict=True):
                yield self._row(values)

    @overload
    def __getitem__(self, index: int) -> ResolvedRow: ...
    @overload
    def __getitem__(self, index: slice) -> "RowStore": ...
    def __getitem__(self, index: int | slice) -> "ResolvedRow | RowStore":
        if isinstance(index, slice):
            wanted = range(self._length)[index]
            return self if wanted == range(self._length) else RowStore(self[i] for i in wanted)
        place = range(self._length)[index]
        chunk = self._chunks[place // _ROWS_PER_CHUNK]
        within = place % _ROWS_PER_CHUNK
        return self._row(tuple(column[within].as_py() for column in chunk.columns))

    def _row(self, values: Sequence[Any]) -> ResolvedRow:
        key, row_id, prompt, negative_prompt, seed, carried_json, number = values
        base_model_digest, loras, method, width, height, sampler_json = self._shared[number]
        return ResolvedRow(
            key=key,
            base_model_digest=base_model_digest,
            row_id=row_id,
            prompt=prompt,
            negative_prompt=negative_prompt,
            loras=loras,
            seed=seed,
            method=method,
            width=width,
            height=height,
            sampler_json=sampler_json,
            carried_json=carried_json,
        )
