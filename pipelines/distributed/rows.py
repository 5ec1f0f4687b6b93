"""A manifest's good rows in Ray's object store, in chunks of some ten thousand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from ray import data

from manifests.rows.checked_rows import CHECKED
from manifests.tables.arrow_functions import arrow
from pipelines.distributed.messages import BATCHES, MESSAGE, message, messages, of_kind, tables_of

CHUNK_BITS = 24
"""A row's place is the number of its chunk and, in so many bits, its place there."""

_CHUNKS_OF_A_SPLIT_BITS = 20


def chunk_number(split: int, chunk: int) -> int:
    """Return the number of a chunk of a split; numbers sort as the manifest does."""
    return (split << _CHUNKS_OF_A_SPLIT_BITS) + chunk


@dataclass(frozen=True, kw_only=True)
class ClusterRows:
    """The rows of a checked manifest, as ``StoredRows`` takes them.

    Attributes:
        checked: Messages of the check; those of the kind ``rows`` hold rows.
        num_rows: Of all of them.
        chunks: Numbers of the chunks, in order.
    """

    checked: data.Dataset
    num_rows: int
    chunks: tuple[int, ...]

    @property
    def num_chunks(self) -> int:
        """How many chunks there are."""
        return len(self.chunks)

    @property
    def dataset(self) -> data.Dataset:
        """The messages that hold rows."""
        return self.checked.map_batches(partial(of_kind, kind="rows"), **BATCHES)

    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows (``CHECKED``), in order, some at a time."""
        import ray

        blocks = self.checked.to_arrow_refs()
        places = ray.remote(_chunks)
        where: dict[int, Any] = {}
        for block, numbers in zip(blocks, ray.get([places.remote(b) for b in blocks]), strict=True):
            where |= dict.fromkeys(numbers, block)
        for number in self.chunks:
            block = ray.get(where[number])
            yield tables_of(_numbered(block, number), "rows", CHECKED)


def to_cluster(tables: Iterable[pa.Table]) -> ClusterRows:
    """Return rows that were checked in this process (tables of ``CHECKED``, in order)."""
    found: list[pa.Table] = []
    num_rows = 0
    for number, table in enumerate(tables):
        places = pa.array(range(len(table))).cast(pa.int64())
        placed = table.set_column(
            0,
            CHECKED.field("place"),
            arrow.add(places, pa.scalar(number << CHUNK_BITS, pa.int64())),
        )
        found.append(messages([message(number, "rows", placed)]))
        num_rows += len(table)
    return ClusterRows(
        checked=data.from_arrow(found or [MESSAGE.empty_table()]),
        num_rows=num_rows,
        chunks=tuple(range(len(found))),
    )


def _chunks(block: pa.Table) -> list[int]:
    return of_kind(block, kind="rows")["number"].to_pylist()


def _numbered(block: pa.Table, number: int) -> pa.Table:
    return block.filter(arrow.equal(block["number"], number))
