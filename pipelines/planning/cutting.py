"""Sorted rows cut into units.

A unit is what one actor makes at a time and what is committed at once, so its id is the hash of its
row keys and attempts. Rows of a group are cut by count, so units stay full and a LoRA set that is
rare shares one with its neighbours.

*A later plan never cuts across an earlier one.* Taking whole committed units away leaves the
borders of the others where they were, and rows that failed stay with those they failed with. Hence
a worker that outlives its driver can only commit a unit that the next run knows by the same id,
where one of the two loses (``tests`` hold this property). Where the manifest or the size of units
was changed in between, ``seal`` sees to it.

Many rows are cut in *buckets*, stretches of the whole order that are cut side by side. A unit that
lies across a border between two is cut from what both leave over, so the units are the same however
rows are dealt into buckets.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from manifests.rows.checked_rows import CHECKED
from manifests.tables.arrays import compacted, one_chunk
from manifests.tables.arrow_functions import arrow
from pipelines.planning.pending import GROUP_CHARACTERS, ORDERED

PLANNED = pa.schema([*CHECKED, ("attempt", pa.int32()), ("unit_id", pa.string())])
"""A row of a unit; a unit's rows are neighbours."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a bucket was cut into.

    Attributes:
        rows: Of whole units (``PLANNED``).
        left_over: The rows before the first and after the last of them (``ORDERED``): of units
            that lie across a border.
    """

    rows: pa.Table
    left_over: pa.Table


def groups_of(rows: pa.Table) -> pa.ChunkedArray:
    """Return the group of each row of a table of ``ORDERED``."""
    return arrow.utf8_slice_codeunits(rows["order"], 0, GROUP_CHARACTERS)


def cut_units(
    rows: pa.Table,
    *,
    rows_per_unit: int,
    abandoned: Collection[str],
    num_before: int = 0,
    is_continued: bool = False,
) -> Cut:
    """Return the units of one bucket.

    Args:
        rows: Of the bucket (``ORDERED``), in any order.
        rows_per_unit: Most rows in a unit.
        abandoned: Unit ids that must not be used again, see ``seal``.
        num_before: Rows of the first row's group in earlier buckets.
        is_continued: Whether the next bucket that holds rows begins with the last row's group.
    """
    rows = one_chunk(rows).sort_by("order")
    if not len(rows):
        return Cut(rows=PLANNED.empty_table(), left_over=ORDERED.empty_table())
    codes = groups_of(rows).combine_chunks().dictionary_encode().indices.to_numpy()
    index = np.arange(len(rows))
    starts_group = np.append(True, codes[1:] != codes[:-1])
    place = index - np.maximum.accumulate(np.where(starts_group, index, 0))
    place[codes == codes[0]] += num_before
    starts = np.flatnonzero(place % rows_per_unit == 0)
    # Rows before ``first`` are of a unit that began in an earlier bucket, those from ``last`` on
    # of one that a later bucket ends.
    first = int(starts[0]) if len(starts) else len(rows)
    last = len(rows)
    if is_continued and (int(place[-1]) + 1) % rows_per_unit:
        last = int(starts[-1]) if len(starts) else first
    borders = np.append(starts[starts < last], last).tolist()
    whole = rows.slice(first, max(last - first, 0))
    spans = [(start - first, end - first) for start, end in pairwise(borders)]
    outside = [*range(min(first, last)), *range(last, len(rows))] if first < last else index
    return Cut(
        rows=_with_ids(whole, spans, abandoned),
        # Copied, because a slice would keep the whole bucket in memory.
        left_over=compacted(rows.take(pa.array(outside, pa.int64()))),
    )


def _with_ids(
    rows: pa.Table, spans: Sequence[tuple[int, int]], abandoned: Collection[str]
) -> pa.Table:
    keys, attempts = rows["key"].to_pylist(), rows["attempt"].to_pylist()
    ids = [unit_id(keys[start:end], attempts[start], abandoned) for start, end in spans]
    lengths = [end - start for start, end in spans]
    of_each = np.repeat(np.arange(len(ids)), lengths)
    unit_ids = pa.array(ids, pa.string()).take(pa.array(of_each))
    return pa.table([*rows.drop_columns("order").columns, unit_ids], schema=PLANNED)


def unit_id(keys: Sequence[str], attempt: int, abandoned: Collection[str] = ()) -> str:
    """Return the id of the unit of ``keys`` at their coming attempt."""
    text = "\n".join(f"{key} {attempt}" for key in sorted(keys))
    name = hashlib.sha256(text.encode()).hexdigest()
    while name in abandoned:
        name = hashlib.sha256(name.encode()).hexdigest()
    return name
