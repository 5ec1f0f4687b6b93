"""How tables travel between the tasks of a shuffle: as bytes in one Ray row.

A shuffle then moves some hundred messages and not millions of rows, texts that rows share are in a
message once, and no block size can tear one. A message has a number, by which it is shuffled, and a
kind.
"""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.tables.arrays import compacted, one_chunk
from manifests.tables.arrow_functions import arrow

MESSAGE = pa.schema(
    [
        ("number", pa.int64()),
        ("kind", pa.string()),
        ("rows", pa.large_binary()),
        ("facts", pa.large_binary()),
    ]
)
"""``rows`` is a table in Arrow's stream format; ``facts`` are Python values. Both may be null."""

BATCHES: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
"""How stages take messages: whole blocks, as tables."""

_NOTHING = "nothing"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def message(
    number: int, kind: str, rows: pa.Table | None = None, facts: object = None
) -> dict[str, Any]:
    """Return one message; ``messages`` makes a table of several."""
    return {
        "number": number,
        "kind": kind,
        "rows": None if rows is None else packed(rows),
        "facts": None if facts is None else pickle.dumps(facts),
    }


def messages(found: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the messages as a table of ``MESSAGE``, which has one of no kind if there are none.

    Ray Data forgets the schema of an empty block, and a shuffle that meets one fails.
    """
    return pa.Table.from_pylist(list(found) or [message(0, _NOTHING)], schema=MESSAGE)


def packed(rows: pa.Table) -> bytes:
    """Return a table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_OPTIONS) as writer:
        writer.write_table(compacted(rows))
    return sink.getvalue().to_pybytes()


def unpacked(content: bytes) -> pa.Table:
    """Return the table that ``packed`` wrote."""
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


def numbers_of(batch: pa.Table, kind: str) -> list[int]:
    """Return the numbers of the messages of a kind."""
    return batch["number"].filter(arrow.equal(batch["kind"], kind)).to_pylist()


def of_number(batch: pa.Table, number: int) -> pa.Table:
    """Return the messages with a number."""
    return batch.filter(arrow.equal(batch["number"], number))


def of_kind(batch: pa.Table, kind: str) -> pa.Table:
    """Return the messages of a kind, as ``messages`` does."""
    found = batch.filter(arrow.equal(batch["kind"], kind))
    return found if len(found) else messages([])


def tables_of(batch: pa.Table, kind: str, schema: pa.Schema) -> pa.Table:
    """Return the rows of all messages of a kind as one table."""
    found = [
        unpacked(each["rows"])
        for each in batch.select(["kind", "rows"]).to_pylist()
        if each["kind"] == kind and each["rows"] is not None
    ]
    return one_chunk(pa.concat_tables([schema.empty_table(), *found]))


def facts_of(batch: pa.Table, kind: str) -> Iterator[tuple[int, Any]]:
    """Yield number and facts of each message of a kind that has any."""
    for each in batch.select(["number", "kind", "facts"]).to_pylist():
        if each["kind"] == kind and each["facts"] is not None:
            # Written by a task of this run.
            yield each["number"], pickle.loads(each["facts"])  # noqa: S301


def dealt(rows: pa.Table, numbers: np.ndarray, kind: str) -> Iterator[dict[str, Any]]:
    """Yield a message for each number, with the rows of a table that have it, in their order."""
    if not len(rows):
        return
    order = np.argsort(numbers, kind="stable")
    ordered = one_chunk(rows).take(pa.array(order))
    found, starts = np.unique(numbers[order], return_index=True)
    ends = np.append(starts, len(rows))[1:]
    for number, start, end in zip(found.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield message(number, kind, ordered.slice(start, end - start))
