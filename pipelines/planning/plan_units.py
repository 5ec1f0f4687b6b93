"""Planning in this process: which rows are still to be made, cut into units.

The stages are ``pending_rows`` of each partition of the keys, ``cut_units`` of each bucket of the
sorted rows, and ``dealt`` of each part; see there. Here they are one after another, with the rows
between them on disk once they outgrow memory; ``pipelines.distributed.plan`` runs the same ones on
a cluster. The units and their ids are the same, and the order of the manifest's rows changes
nothing but which of several equal rows gives its ``row_id``.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa

from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from manifests.tables.arrays import one_chunk
from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from pipelines.ledger.ledger import FailedRow
from pipelines.planning.buckets import (
    SAMPLES,
    bucket_borders,
    bucket_edges,
    bucket_of,
    bucket_sizes,
    sampled,
)
from pipelines.planning.cutting import PLANNED, cut_units
from pipelines.planning.partitions import num_partitions, partition_of
from pipelines.planning.pending import (
    ATTEMPTS,
    FAILURES,
    KEYS,
    ORDERED,
    PLACES,
    Pending,
    Rules,
    ordered_rows,
    pending_rows,
)
from pipelines.planning.plan import Plan, PlanCounts
from pipelines.planning.plan_uses import PlanUses, uses_of, uses_together
from pipelines.planning.unit_runs import UnitRun, dealt, in_dealing_order


def plan_units(
    rows: Iterable[Row],
    *,
    made: Collection[str],
    failed: Mapping[str, FailedRow],
    rows_per_unit: int,
    attempts: int | None,
    abandoned: Collection[str] = frozenset(),
    block_of: Callable[[Row], str] | None = None,
) -> Plan:
    """Return the units that make every row which is not made and has not failed too often.

    Args:
        rows: The whole manifest.
        made: Keys of committed rows, of this manifest or any other.
        failed: Rows without an image, by key.
        rows_per_unit: Most rows in a unit. More fills batches better and loses more on a kill.
        attempts: A row that failed so often is left alone; None tries all again.
        abandoned: Unit ids that must not be used again, see ``seal``.
        block_of: Names the block of a row: one unit's rows are all of one block. With
            ``rows_per_unit`` as large as a block, units do not depend on what else is planned.
    """
    failures = {
        "key": list(failed),
        "attempt": [failure.attempts for failure in failed.values()],
        "unit_id": [failure.unit_id for failure in failed.values()],
    }
    return plan_tables(
        StoredRows.of(rows),
        made=[pa.table({"key": list(made)}, schema=KEYS)],
        failures=pa.table(failures, schema=FAILURES),
        rules=Rules(attempts=attempts, block_of=block_of),
        rows_per_unit=rows_per_unit,
        abandoned=abandoned,
    )


def plan_tables(
    rows: StoredRows,
    *,
    made: Iterable[pa.Table],
    failures: pa.Table,
    rules: Rules,
    rows_per_unit: int,
    abandoned: Collection[str],
    asked_before: Iterable[pa.Table] | None = None,
) -> Plan:
    """Return the units that make every row which is not made and has not failed too often.

    Args:
        rows: The whole manifest.
        made: Keys of committed rows (``pending.KEYS``), of this manifest or any other.
        failures: Rows without an image (``pending.FAILURES``).
        rules: What else decides what is to be made.
        rows_per_unit: Most rows in a unit.
        abandoned: Unit ids that must not be used again.
        asked_before: Keys that the last run of the whole manifest was asked for; see
            ``pending_rows``.

    Raises:
        SpoolError: There is no room for temporary files.
    """
    attempts = _Attempts(rows)
    found = list(_pending(rows, made, failures, rules, asked_before, attempts))
    num_buckets = num_partitions(attempts.num_rows)
    borders = bucket_borders(_samples(attempts, rules, num_buckets), num_buckets)
    buckets, sizes, num_unusable = Spool(ORDERED, num_buckets), Counter[tuple[int, str]](), 0
    for table in attempts.tables():
        ordered, unusable = ordered_rows(*table, rules)
        numbers = bucket_of(ordered, borders)
        buckets.add(ordered, numbers)
        sizes.update(bucket_sizes(ordered, numbers))
        num_unusable += unusable
    return _cut(buckets, sizes, plan_counts(found, num_unusable), rows_per_unit, abandoned)


def _pending(
    rows: StoredRows,
    made: Iterable[pa.Table],
    failures: pa.Table,
    rules: Rules,
    asked_before: Iterable[pa.Table] | None,
    attempts: "_Attempts",
) -> Iterator[Pending]:
    """Yield what is to be made of each partition of the keys, and note it in ``attempts``."""
    num = num_partitions(len(rows))
    of_rows = dealt_by_key(rows.tables(), PLACES, num)
    of_made = dealt_by_key(made, KEYS, num)
    of_asked = None if asked_before is None else dealt_by_key(asked_before, KEYS, num)
    for partition in range(num):
        pending = pending_rows(
            of_rows.partition(partition),
            made=of_made.partition(partition),
            failures=failures,
            rules=rules,
            asked_before=None if of_asked is None else of_asked.partition(partition),
        )
        attempts.note(pending.rows)
        yield replace(pending, rows=ATTEMPTS.empty_table())


def dealt_by_key(tables: Iterable[pa.Table], schema: pa.Schema, num: int) -> Spool:
    """Return the columns of ``schema`` by partitions of the key."""
    spool = Spool(schema, num)
    for table in tables:
        spool.add(table.select(schema.names), partition_of(table["key"], num))
    return spool


class _Attempts:
    """The rows of a manifest that are to be made, read in its order: a byte a row."""

    def __init__(self, rows: StoredRows) -> None:
        self._rows = rows
        self._is_pending = np.zeros(len(rows), bool)
        self._again: dict[int, tuple[int, str]] = {}
        self.num_rows = 0

    def note(self, found: pa.Table) -> None:
        """Note rows to be made (``ATTEMPTS``)."""
        self._is_pending[found["place"].to_numpy()] = True
        self.num_rows += len(found)
        for row in found.filter(arrow.greater(found["attempt"], 1)).to_pylist():
            self._again[row["place"]] = row["attempt"], row["failed_with"]

    def tables(self, step: int = 1) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield rows (``CHECKED``) and their attempts (``ATTEMPTS``); ``sampled`` of them."""
        for table in self._rows.tables():
            places = table["place"].to_numpy()
            chosen = np.flatnonzero(self._is_pending[places])
            if len(chosen):
                chosen = chosen[sampled(len(chosen), step, seed=int(places[0]))]
                again = [self._again.get(place, (1, "")) for place in places[chosen].tolist()]
                columns = {
                    "place": places[chosen],
                    "attempt": [attempt for attempt, _ in again],
                    "failed_with": [unit_id for _, unit_id in again],
                }
                rows = one_chunk(table).take(pa.array(chosen))
                yield rows, pa.table(columns, schema=ATTEMPTS)


def _samples(attempts: _Attempts, rules: Rules, num_buckets: int) -> Iterator[str]:
    """Yield the order of some of the rows, all over the manifest."""
    if num_buckets > 1:
        for table in attempts.tables(step=max(1, attempts.num_rows // (num_buckets * SAMPLES))):
            yield from ordered_rows(*table, rules)[0]["order"].to_pylist()


def _cut(
    buckets: Spool,
    sizes: Mapping[tuple[int, str], int],
    counts: PlanCounts,
    rows_per_unit: int,
    abandoned: Collection[str],
) -> Plan:
    parts = _Parts(buckets.num_partitions + 1)
    left_over: list[pa.Table] = []
    around = bucket_edges(sizes, buckets.num_partitions)
    for bucket, (num_before, is_continued) in enumerate(around):
        cut = cut_units(
            buckets.partition(bucket),
            rows_per_unit=rows_per_unit,
            abandoned=abandoned,
            num_before=num_before,
            is_continued=is_continued,
        )
        left_over.append(cut.left_over)
        parts.add(cut.rows)
    buckets.close()
    across = cut_units(
        pa.concat_tables([ORDERED.empty_table(), *left_over]),
        rows_per_unit=rows_per_unit,
        abandoned=abandoned,
    )
    parts.add(across.rows)
    return parts.plan(counts)


class _Parts:
    """The parts of a plan, as they come."""

    def __init__(self, num_parts: int) -> None:
        self._spool = Spool(PLANNED, num_parts)
        self._runs: list[UnitRun] = []
        self._uses: list[PlanUses] = []

    def add(self, rows: pa.Table) -> None:
        """Add a part, if it holds anything."""
        part = len(self._uses)
        if len(rows):
            rows, runs = dealt(rows, part)
            self._spool.put(rows, part)
            self._runs += runs
            self._uses.append(uses_of(rows))

    def plan(self, counts: PlanCounts) -> Plan:
        """Return the plan of all parts."""
        return Plan(
            **asdict(counts),
            runs=in_dealing_order(self._runs),
            num_rows=self._spool.num_rows,
            uses=uses_together(self._uses),
            read_part=self._spool.partition,
        )


def plan_counts(found: Iterable[Pending], num_unusable: int) -> PlanCounts:
    """Return the sums over all partitions."""
    every = list(found)
    return PlanCounts(
        num_manifest_rows=sum(each.num_rows for each in every),
        num_duplicates=sum(each.num_duplicates for each in every),
        num_already_made=sum(each.num_already_made for each in every),
        num_unusable=num_unusable,
        quarantined=tuple(sorted(key for each in every for key in each.quarantined)),
    )
