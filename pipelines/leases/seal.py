"""What makes a run that was taken for dead harmless, even in the middle of a commit.

A worker asks for its lease and then commits, and it can be stopped in between for any time. If the
manifest was changed meanwhile, its unit may hold rows that the new run has in other units, and both
would be committed. So before a new run starts, it creates the file of every unit that an earlier
run planned and did not commit, and of which it has a row in a unit of its own, as an *abandoned*
unit: no rows, no failures. Creating is atomic, so of worker and new run one wins. If the worker
did, its rows are made and the new run plans again without them.

The earlier run writes its plan before it asks for its lease a last time, and the new run claims the
lease before it looks for plans: a plan that is not seen is of a run that never starts.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from pipelines.leases.lease_record import LeaseRecord
from pipelines.planning.partitions import num_partitions, partition_of
from pipelines.planning.plan_files import UNIT_KEYS, planned_keys, planned_phases
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import UnitFooter, encode_unit, rows_name
from pipelines.units.output_files import DamagedFileError
from pipelines.units.receipts import Phase
from pipelines.units.schemas import ROWS

UNITS = pa.schema([UNIT_KEYS.field("unit_id")])
KEYS = pa.schema([UNIT_KEYS.field("key")])


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Units that an earlier run planned, and neither it committed nor the new run plans.

    Attributes:
        unit_ids: Those that hold a row of the new plan.
        others: Whether there are any that hold none, or a plan that could not be read. They can do
            no harm now, but a later run has to look at them again.
    """

    unit_ids: frozenset[str]
    others: bool


@dataclass(frozen=True, kw_only=True)
class EarlierPlans:
    """Plans of runs that may have workers left.

    Attributes:
        units: Unit ids and row keys (``UNIT_KEYS``).
        is_whole: Every plan could be read.
    """

    units: Spool
    is_whole: bool


def plans_of_earlier_runs(
    storage: Storage, leases: Sequence[LeaseRecord], *, note: Callable[[str], None]
) -> EarlierPlans:
    """Return what the runs of ``leases`` planned, committed or not.

    Args:
        storage: The output.
        leases: Of the runs. One that is damaged does not say whose it is, so all plans count.
        note: Gets a sentence for each file of a plan that is damaged.
    """
    runs = [lease.run_id for lease in leases]
    if any(lease.is_damaged for lease in leases):
        runs = planned_phases(storage, Phase.IMAGES)
    found, is_whole = Spool(UNIT_KEYS), True

    def skip(error: DamagedFileError) -> None:
        nonlocal is_whole
        is_whole = False
        note(
            f"{error}. Until then units of its run cannot be kept from being committed: if a "
            "process of that run may still live on another machine, stop it"
        )

    for run_id in runs:
        for table in planned_keys(storage, run_id, Phase.IMAGES, skip=skip):
            found.add(table)
    return EarlierPlans(units=found, is_whole=is_whole)


def find_rivals(
    earlier: EarlierPlans,
    *,
    settled: Iterable[pa.Table],
    own_keys: Callable[[], Iterable[pa.Table]],
) -> Rivals:
    """Return what workers of earlier runs could still commit.

    Args:
        earlier: From ``plans_of_earlier_runs``.
        settled: Ids (``UNITS``) of units that are committed, or that this run plans too.
        own_keys: Gives the keys (``KEYS``) of rows that nobody else may commit now.
    """
    if not earlier.units.num_rows:
        return Rivals(unit_ids=frozenset(), others=not earlier.is_whole)
    num = num_partitions(earlier.units.num_rows)
    open_units = _without(earlier.units.tables(), settled, num)
    pending = _dealt(open_units, UNIT_KEYS, "key", num)
    if not pending.num_rows:
        return Rivals(unit_ids=frozenset(), others=not earlier.is_whole)
    own = _dealt(own_keys(), KEYS, "key", num)
    rivals: set[str] = set()
    for number in range(num):
        units = pending.partition(number)
        is_own = arrow.is_in(units["key"], value_set=own.partition(number)["key"])
        rivals.update(units["unit_id"].filter(is_own).unique().to_pylist())
    # Looked at again once all rivals are known, because rows of one unit are in many partitions.
    others = not earlier.is_whole or not all(
        rivals.issuperset(pending.partition(number)["unit_id"].unique().to_pylist())
        for number in range(num)
    )
    return Rivals(unit_ids=frozenset(rivals), others=others)


def _without(
    units: Iterable[pa.Table], settled: Iterable[pa.Table], num: int
) -> Iterable[pa.Table]:
    """Yield the rows of ``units`` (``UNIT_KEYS``) whose unit is not settled."""
    planned = _dealt(units, UNIT_KEYS, "unit_id", num)
    known = _dealt(settled, UNITS, "unit_id", num)
    for number in range(num):
        table = planned.partition(number)
        is_settled = arrow.is_in(table["unit_id"], value_set=known.partition(number)["unit_id"])
        yield table.filter(arrow.invert(is_settled))


def _dealt(tables: Iterable[pa.Table], schema: pa.Schema, column: str, num: int) -> Spool:
    """Return the rows of ``tables`` by partitions of a column of hashes."""
    spool = Spool(schema, num)
    for table in tables:
        spool.add(table.select(schema.names), partition_of(table[column], num))
    return spool


def seal_units(storage: Storage, unit_ids: Collection[str], *, run_id: str) -> bool:
    """Abandon the units, none of which were committed when it was last looked.

    Returns:
        Whether all are abandoned now; if not, a worker of an earlier run committed one since.
    """
    empty = ROWS.empty_table()
    is_sealed = True
    for unit_id in sorted(unit_ids):
        footer = UnitFooter(
            unit_id=unit_id, run_id=run_id, errors=[], failed_at_ms=0, is_abandoned=True
        )
        is_ours = storage.put_if_absent(rows_name(unit_id), encode_unit(empty, footer))
        is_sealed = is_sealed and is_ours
    return is_sealed
