"""A manifest planned by Ray Data: the stages of ``planning`` as tasks, with shuffles between them.

    rows ─► keys ─► by key: pending ─► by chunk: ordered ─► by bucket: cut ─► parts
                     ▲ made, failed

Units and ids are those that ``planning.plan_units`` makes of the same rows. The driver sees counts,
borders, what units need, and the few rows of units that lie across two buckets.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray import data

from manifests.rows.checked_rows import CHECKED
from manifests.tables.arrow_functions import arrow
from pipelines.distributed.messages import (
    BATCHES,
    dealt,
    message,
    messages,
    numbers_of,
    of_number,
    packed,
    tables_of,
    unpacked,
)  # fmt: skip
from pipelines.distributed.rows import CHUNK_BITS, ClusterRows, blocks_by_number
from pipelines.distributed.session import facts_in, finished, num_workers, ray_data
from pipelines.planning.buckets import (
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
    KEYS,
    ORDERED,
    PLACES,
    Rules,
    ordered_rows,
    pending_rows,
)  # fmt: skip
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import part_name, write_part
from pipelines.planning.plan_units import dealt_by_key, plan_counts  # fmt: skip
from pipelines.planning.plan_uses import uses_of, uses_together
from pipelines.planning.unit_runs import UnitRun, in_dealing_order
from pipelines.planning.unit_runs import dealt as dealt_units
from pipelines.storage.storage import Storage
from pipelines.units.receipts import Phase

SAMPLE_STEP = 256


def plan_on_ray(
    rows: ClusterRows,
    *,
    made: Iterable[pa.Table],
    failures: pa.Table,
    rules: Rules,
    rows_per_unit: int,
    abandoned: Collection[str],
    asked_before: Iterable[pa.Table] | None = None,
) -> Plan:
    """Return the plan that ``plan_units.plan_tables`` returns.

    Args:
        rows: The whole manifest, on the cluster.
        made: As there, and so are all others.
        failures: As there.
        rules: As there.
        rows_per_unit: As there.
        abandoned: As there.
        asked_before: As there.

    Raises:
        ClusterError: The cluster has no room, or lost what it held.
    """
    with ray_data("planned"):
        num = num_partitions(rows.num_rows)
        keys = rows.dataset.map_batches(partial(_deal_keys, num=num), **BATCHES)
        known = _known(made, "made", num)
        if asked_before is not None:
            known += _known(asked_before, "asked", num)
        pending = finished(
            _grouped(keys, known, num).map_groups(
                partial(
                    _pending,
                    failures=packed(failures),
                    rules=rules,
                    asks=asked_before is not None,
                ),
                batch_format="pyarrow",
            )
        )
        counts = [facts for _, facts in facts_in(pending, "counts")]
        num_pending = sum(count for count, _ in counts)
        ordered = finished(
            rows.dataset.union(pending)
            .groupby("number", num_partitions=_num_groups(rows.num_chunks))
            .map_groups(
                partial(_ordered, rules=rules, sample_step=SAMPLE_STEP), batch_format="pyarrow"
            )
        )
        samples, unusable = [], 0
        for _, (some, num_unusable) in facts_in(ordered, "ordered"):
            samples += some
            unusable += num_unusable
        num_buckets = num_partitions(num_pending)
        borders = bucket_borders(samples, num_buckets)
        buckets = finished(ordered.map_batches(partial(_deal_buckets, borders=borders), **BATCHES))
        sizes: Counter[tuple[int, str]] = Counter()
        for _, some in facts_in(buckets, "sizes"):
            sizes.update(some)
        edges = list(bucket_edges(sizes, num_buckets))
        cut = finished(
            buckets.groupby("number", num_partitions=_num_groups(num_buckets)).map_groups(
                partial(_cut, edges=edges, rows_per_unit=rows_per_unit, abandoned=abandoned),
                batch_format="pyarrow",
            )
        )
        return _plan(
            cut,
            plan_counts([found for _, found in counts], unusable),
            num_pending,
            num_buckets,
            rows_per_unit=rows_per_unit,
            abandoned=abandoned,
        )


def _known(tables: Iterable[pa.Table], kind: str, num: int) -> list[Any]:
    """Return keys as messages in the object store, one a partition."""
    spool = dealt_by_key(tables, KEYS, num)
    known = [
        ray.put(messages([message(number, kind, spool.partition(number))])) for number in range(num)
    ]
    spool.close()
    return known


def _grouped(keys: data.Dataset, known: list[Any], num: int) -> Any:
    both = keys.union(data.from_arrow_refs(known))
    return both.groupby("number", num_partitions=_num_groups(num))


def _num_groups(num_numbers: int) -> int:
    """Return how many tasks share so many numbers: several for each processor, and no more."""
    return max(1, min(num_numbers, 4 * num_workers()))


def _deal_keys(batch: pa.Table, *, num: int) -> pa.Table:
    rows = tables_of(batch, "rows", CHECKED).select(PLACES.names)
    return messages(dealt(rows, partition_of(rows["key"], num), "keys"))


def _pending(batch: pa.Table, *, failures: bytes, rules: Rules, asks: bool) -> pa.Table:
    """Return for each chunk of the manifest which of its rows are to be made."""
    found = pending_rows(
        tables_of(batch, "keys", PLACES),
        made=tables_of(batch, "made", KEYS),
        failures=unpacked(failures),
        rules=rules,
        asked_before=tables_of(batch, "asked", KEYS) if asks else None,
    )
    chunks = found.rows["place"].to_numpy() >> CHUNK_BITS
    counts = len(found.rows), replace(found, rows=ATTEMPTS.empty_table())
    number = batch["number"][0].as_py()
    return messages(
        [message(number, "counts", facts=counts), *dealt(found.rows, chunks, "attempts")]
    )


def _ordered(batch: pa.Table, *, rules: Rules, sample_step: int) -> pa.Table:
    """Return the rows of a chunk that are to be made, with their order."""
    attempts = tables_of(batch, "attempts", ATTEMPTS).sort_by("place")
    rows = tables_of(batch, "rows", CHECKED)
    if not len(attempts):
        return messages([])
    rows = rows.filter(arrow.is_in(rows["place"], value_set=attempts["place"])).sort_by("place")
    ordered, num_unusable = ordered_rows(rows, attempts, rules)
    number = batch["number"][0].as_py()
    places = sampled(len(ordered), sample_step, seed=number)
    samples = ordered["order"].take(pa.array(places)).to_pylist()
    return messages([message(number, "ordered", ordered, (samples, num_unusable))])


def _deal_buckets(batch: pa.Table, *, borders: list[str]) -> pa.Table:
    rows = tables_of(batch, "ordered", ORDERED)
    numbers = bucket_of(rows, borders)
    sizes = bucket_sizes(rows, numbers)
    return messages([message(0, "sizes", facts=sizes), *dealt(rows, numbers, "bucket")])


def _cut(
    batch: pa.Table,
    *,
    edges: list[tuple[int, bool]],
    rows_per_unit: int,
    abandoned: Collection[str],
) -> pa.Table:
    """Return the part that a bucket is cut into."""
    number = batch["number"][0].as_py()
    num_before, is_continued = edges[number]
    cut = cut_units(
        tables_of(batch, "bucket", ORDERED),
        rows_per_unit=rows_per_unit,
        abandoned=abandoned,
        num_before=num_before,
        is_continued=is_continued,
    )
    rows, runs = dealt_units(cut.rows, number)
    facts = runs, uses_of(rows), packed(cut.left_over)
    return messages([message(number, "part", rows, facts)])


def _plan(
    cut: data.Dataset,
    counts: Any,
    num_rows: int,
    num_buckets: int,
    *,
    rows_per_unit: int,
    abandoned: Collection[str],
) -> Plan:
    facts = sorted(facts_in(cut, "part"), key=lambda found: found[0])
    left_over = [unpacked(left) for _, (_, _, left) in facts]
    across = cut_units(
        pa.concat_tables([ORDERED.empty_table(), *left_over]),
        rows_per_unit=rows_per_unit,
        abandoned=abandoned,
    )
    last, last_runs = dealt_units(across.rows, num_buckets)
    runs: list[UnitRun] = [run for _, (some, _, _) in facts for run in some]
    parts = _Parts(
        blocks=blocks_by_number(cut.to_arrow_refs(), "part"),
        last=last,
        last_part=num_buckets if len(last) else None,
    )
    return Plan(
        **asdict(counts),
        runs=in_dealing_order([*runs, *last_runs]),
        num_rows=num_rows,
        uses=uses_together([*(uses for _, (_, uses, _) in facts), uses_of(last)]),
        read_part=parts.read,
        write_parts=parts.write,
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The parts of a plan in Ray's object store; the last is here.

    Attributes:
        blocks: The block that each part is in; a block holds some.
        last: Rows of the last part.
        last_part: Its number; None if it is empty.
    """

    blocks: dict[int, Any]
    last: pa.Table
    last_part: int | None

    def read(self, part: int) -> pa.Table:
        """Return a part's rows; errors as ``plan_on_ray``."""
        if part == self.last_part:
            return self.last
        with ray_data("planned"):
            return tables_of(of_number(ray.get(self.blocks[part]), part), "part", PLANNED)

    def write(self, storage: Storage, run_id: str, phase: Phase) -> None:
        """Write all parts, side by side."""
        written: Any = ray.remote(_write_block)
        with ray_data("planned"):
            blocks = dict.fromkeys(self.blocks.values())
            ray.get([written.remote(block, storage, run_id, phase) for block in blocks])
        if self.last_part is not None:
            write_part(storage, part_name(run_id, phase, self.last_part), self.last)


def _write_block(block: pa.Table, storage: Storage, run_id: str, phase: Phase) -> None:
    for number in numbers_of(block, "part"):
        rows = tables_of(of_number(block, number), "part", PLANNED)
        if len(rows):
            write_part(storage, part_name(run_id, phase, number), rows)
