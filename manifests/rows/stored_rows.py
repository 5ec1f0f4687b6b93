"""The good rows of a manifest, in its order: on disk once they outgrow memory."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, overload

import numpy as np
import pyarrow as pa

from clora_core.recipe.row import Row
from manifests.rows.checked_rows import (
    CHECKED,
    checked_tables,
    rows_of_checked,
    shared_values,
)
from manifests.tables.arrays import one_array
from manifests.tables.spool import Spool

MAX_TABLE_ROWS = 8192
_ROWS_AT_ONCE = 256


class RowSource(Protocol):
    """Where rows are: a ``Spool`` of this process, or a cluster."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        ...

    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows as tables of ``CHECKED``, in order."""
        ...


class StoredRows(Sequence[Row]):
    """An immutable sequence of rows, each made when somebody looks at it.

    Args:
        source: Where they are; nothing is added to it any more.
    """

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self._last: tuple[int, list[Row]] = (0, [])

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "StoredRows":
        """Return ``rows`` stored; they are taken one at a time."""
        if isinstance(rows, StoredRows):
            return rows
        spool = Spool(CHECKED)
        for table in checked_tables(rows):
            spool.add(table)
        return cls(spool)

    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows as tables of ``CHECKED``, in order; places count from 0."""
        first = 0
        for whole in self.source.tables():
            for start in range(0, len(whole), MAX_TABLE_ROWS):
                table = whole.slice(start, MAX_TABLE_ROWS)
                places = pa.array(np.arange(first, first + len(table)))
                yield table.set_column(0, CHECKED.field("place"), places)
                first += len(table)

    def kinds(self) -> Iterator[tuple[Row, int]]:
        """Yield a row for each kind of row, without what is its own, and how many there are.

        Grows with the kinds of rows alone; see ``checked_rows``.
        """
        counts: Counter[str] = Counter()
        for table in self.source.tables():
            found = one_array(table["shared_json"]).value_counts()
            counts.update(dict(zip(*map(pa.Array.to_pylist, found.flatten()), strict=True)))
        for text, count in counts.items():
            yield Row(prompt="", seed=0, **shared_values(text)), count

    def __len__(self) -> int:
        return self.source.num_rows

    def __iter__(self) -> Iterator[Row]:
        for table in self.tables():
            yield from rows_of_checked(table)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredRows": ...
    def __getitem__(self, index: int | slice) -> "Row | StoredRows":
        if isinstance(index, slice):
            return self._slice(range(len(self))[index])
        place = range(len(self))[index]
        first, rows = self._last
        if not first <= place < first + len(rows):
            first, rows = self._last = self._near(place)
        return rows[place - first]

    def _near(self, place: int) -> tuple[int, list[Row]]:
        first = 0
        for table in self.tables():
            if place < first + len(table):
                break
            first += len(table)
        else:
            raise IndexError(place)
        start = (place - first) // _ROWS_AT_ONCE * _ROWS_AT_ONCE
        return first + start, list(rows_of_checked(table.slice(start, _ROWS_AT_ONCE)))

    def _slice(self, wanted: range) -> "StoredRows":
        if wanted == range(len(self)):
            return self
        if wanted.step != 1:
            return StoredRows.of(self[place] for place in wanted)
        spool, first = Spool(CHECKED), 0
        for table in self.tables():
            start, stop = max(wanted.start - first, 0), wanted.stop - first
            if stop <= 0:
                break
            spool.add(table.slice(start, max(min(stop, len(table)) - start, 0)))
            first += len(table)
        return StoredRows(spool)
