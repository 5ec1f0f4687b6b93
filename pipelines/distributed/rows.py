"""A manifest's good rows in Ray's object store, in chunks of some ten thousand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray import data

from manifests.rows.checked_rows import CHECKED
from manifests.tables.arrow_functions import arrow
from pipelines.distributed.messages import (
    BATCHES,
    message,
    messages,
    numbers_of,
    of_kind,
    of_number,
    tables_of,
)  # fmt: skip

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
        where = blocks_by_number(self.checked.to_arrow_refs(), "rows")
        for number in self.chunks:
            yield tables_of(of_number(ray.get(where[number]), number), "rows", CHECKED)


def to_cluster(tables: Iterable[pa.Table]) -> ClusterRows:
    """Return rows that were checked in this process (tables of ``CHECKED``, in order)."""
    found: list[Any] = []
    num_rows = num_chunks = 0
    for number, table in enumerate(tables):
        places = pa.array(range(len(table))).cast(pa.int64())
        placed = table.set_column(
            0,
            CHECKED.field("place"),
            arrow.add(places, pa.scalar(number << CHUNK_BITS, pa.int64())),
        )
        found.append(ray.put(messages([message(number, "rows", placed)])))
        num_rows, num_chunks = num_rows + len(table), num_chunks + 1
    if not found:
        found.append(ray.put(messages([])))
    return ClusterRows(
        checked=data.from_arrow_refs(found),
        num_rows=num_rows,
        chunks=tuple(range(num_chunks)),
    )


def blocks_by_number(blocks: list[Any], kind: str) -> dict[int, Any]:
    """Return which of some blocks of messages holds the one of a kind with each number."""
    found: Any = ray.remote(numbers_of)
    numbers = ray.get([found.remote(block, kind) for block in blocks])
    return {number: block for block, some in zip(blocks, numbers, strict=True) for number in some}
