"""The plan: which rows are still to be made, cut into units.

A unit is what one actor makes at a time and what is committed at once, so its id is the hash of its
row keys and attempts, and cutting obeys two rules.

*Like with like.* A unit holds rows of one method, size, settings and number of concepts, which the
composer makes in one batch. Within that, rows are sorted by LoRA set and units are dealt out in
that order, so an actor meets a LoRA set once; hot sets span units, tiny ones share one.

*A later plan never cuts across an earlier one.* Rows are cut by count from sorted groups, so taking
whole committed units away leaves the borders of the others where they were; and rows that failed
stay with those they failed with. Hence a worker that outlives its driver can only commit a unit
that the next run knows by the same id, where one of the two loses (``tests`` hold this property).
Where the manifest or the size of units was changed in between, ``seal`` sees to it.

Pure: tables in, tables out; the order of the manifest's rows changes nothing but which of several
equal rows gives its ``row_id``.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.schemas import PLAN, PLANNED_ROW

__all__ = ["FailedRow", "Plan", "plan_units"]

_GROUP = ("failed_with", "attempt", "num_concepts", "width", "height", "method", "sampler_json")


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """What the ledger knows of a row that was tried in vain: how often, and last in which unit."""

    attempts: int
    unit_id: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Units to make, and where the manifest's other rows are.

    Attributes:
        units: Table of ``schemas.PLAN``, in the order to make them.
        num_manifest_rows: Rows that were given.
        num_duplicates: Rows whose key an earlier row has.
        num_already_made: Distinct rows that are committed.
        quarantined: Keys that failed too often to be tried again.
    """

    units: pa.Table
    num_manifest_rows: int
    num_duplicates: int
    num_already_made: int
    quarantined: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Rows in the units."""
        return sum(self.units["num_rows"].to_pylist())


def plan_units(
    rows: pa.Table,
    *,
    made: Collection[str],
    failed: Mapping[str, FailedRow],
    rows_per_unit: int,
    max_attempts: int | None,
    abandoned: Collection[str] = frozenset(),
) -> Plan:
    """Return the units that make every row which is not made and has not failed too often.

    Args:
        rows: Table of ``schemas.PLANNED_ROW``: the whole manifest.
        made: Keys of committed rows, of this manifest or any other.
        failed: Rows without an image, by key.
        rows_per_unit: Most rows in a unit. More fills batches better and loses more on a kill.
        max_attempts: A row that failed as often is left alone; None tries all again.
        abandoned: Unit ids that must not be used again, see ``seal``.
    """
    distinct = _first_of_each_key(rows)
    quarantined: list[str] = []
    is_made = np.array([key in made for key in distinct["key"].to_pylist()], dtype=bool)
    pending = _with_attempts(distinct.filter(pa.array(~is_made)), failed)
    if max_attempts is not None:
        is_given_up = pending["attempt"].to_numpy() > max_attempts
        quarantined = pending.filter(pa.array(is_given_up))["key"].to_pylist()
        pending = pending.filter(pa.array(~is_given_up))
    return Plan(
        units=_cut(pending, rows_per_unit, abandoned),
        num_manifest_rows=rows.num_rows,
        num_duplicates=rows.num_rows - distinct.num_rows,
        num_already_made=int(is_made.sum()),
        quarantined=tuple(sorted(quarantined)),
    )


def _first_of_each_key(rows: pa.Table) -> pa.Table:
    if rows.num_rows == 0:
        return rows
    codes = rows["key"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return rows.take(pa.array(np.sort(first)))


def _with_attempts(rows: pa.Table, failed: Mapping[str, FailedRow]) -> pa.Table:
    """Return ``rows`` with the number of the coming attempt, and what they are grouped by."""
    attempts: list[int] = []
    failed_with: list[str] = []
    num_concepts: list[int] = []
    lora_sets: list[str] = []
    lora_digests: list[str] = []
    for key, loras in zip(rows["key"].to_pylist(), rows["loras"].to_pylist(), strict=True):
        failure = failed.get(key)
        attempts.append(1 + failure.attempts if failure else 1)
        failed_with.append(failure.unit_id if failure else "")
        num_concepts.append(sum(lora["kind"] == "concept" for lora in loras))
        lora_sets.append(" + ".join(lora["name"] for lora in loras))
        lora_digests.append(" ".join(sorted(lora["digest"] for lora in loras)))
    index = rows.schema.get_field_index("attempt")
    rows = rows.set_column(index, "attempt", pa.array(attempts, pa.int32()))
    rows = rows.append_column("failed_with", pa.array(failed_with, pa.string()))
    rows = rows.append_column("num_concepts", pa.array(num_concepts, pa.int32()))
    rows = rows.append_column("lora_digests", pa.array(lora_digests, pa.string()))
    return rows.append_column("lora_set", pa.array(lora_sets, pa.string()))


def _cut(rows: pa.Table, rows_per_unit: int, abandoned: Collection[str]) -> pa.Table:
    if rows.num_rows == 0:
        return PLAN.empty_table()
    order = [(name, "ascending") for name in (*_GROUP, "lora_digests", "key")]
    rows = rows.sort_by(order).combine_chunks()
    starts = _unit_starts(rows, rows_per_unit)
    ends = np.append(starts[1:], rows.num_rows)
    keys = rows["key"].to_pylist()
    attempts = rows["attempt"].to_pylist()
    first = rows.take(pa.array(starts))
    planned = rows.select(PLANNED_ROW.names).combine_chunks()
    structs = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in planned.columns], fields=list(PLANNED_ROW)
    )
    offsets = pa.array(np.append(starts, rows.num_rows), pa.int32())
    units = pa.table(
        {
            "unit_id": [
                _unit_id(keys[start:end], attempts[start:end], abandoned)
                for start, end in zip(starts, ends, strict=True)
            ],
            "num_rows": pa.array(ends - starts, pa.int32()),
            **{name: first[name] for name in ("method", "width", "height", "lora_set", "attempt")},
            "rows": pa.ListArray.from_arrays(offsets, structs),
        },
        schema=PLAN,
    )
    # Rows that failed before come last: what is new should not wait for what may fail again.
    dealt = ["attempt", "lora_set", "width", "height", "method", "unit_id"]
    return units.sort_by([(name, "ascending") for name in dealt])


def _unit_starts(rows: pa.Table, rows_per_unit: int) -> np.ndarray:
    """Return the index of each unit's first row: every ``rows_per_unit``-th row of each group."""
    is_group_start = np.zeros(rows.num_rows, dtype=bool)
    is_group_start[0] = True
    for name in _GROUP:
        codes = rows[name].combine_chunks().dictionary_encode().indices.to_numpy()
        is_group_start[1:] |= codes[1:] != codes[:-1]
    index = np.arange(rows.num_rows)
    group_start = np.maximum.accumulate(np.where(is_group_start, index, 0))
    return np.flatnonzero((index - group_start) % rows_per_unit == 0)


def _unit_id(keys: list[str], attempts: list[int], abandoned: Collection[str]) -> str:
    pairs = sorted(zip(keys, attempts, strict=True))
    text = "\n".join(f"{key} {attempt}" for key, attempt in pairs)
    unit_id = hashlib.sha256(text.encode()).hexdigest()
    while unit_id in abandoned:
        unit_id = hashlib.sha256(unit_id.encode()).hexdigest()
    return unit_id
