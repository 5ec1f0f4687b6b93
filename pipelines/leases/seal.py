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

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.leases.lease_record import LeaseRecord
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import UnitFooter, encode_unit, rows_name
from pipelines.units.output_files import DamagedFileError, read_table
from pipelines.units.receipts import Phase
from pipelines.units.schemas import ROWS

PLANS_FOLDER = "plans"


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
        units: Unit ids and row keys, a table a plan.
        is_whole: Every plan could be read.
    """

    units: tuple[pa.Table, ...]
    is_whole: bool


def plan_name(run_id: str, phase: Phase) -> str:
    """Return the name of a run's plan."""
    return f"{PLANS_FOLDER}/{run_id}-{phase}.parquet"


def plans_of_earlier_runs(
    storage: Storage, leases: Sequence[LeaseRecord], *, note: Callable[[str], None]
) -> EarlierPlans:
    """Return what the runs of ``leases`` planned, committed or not.

    Args:
        storage: The output.
        leases: Of the runs. One that is damaged does not say whose it is, so all plans count.
        note: Gets a sentence for each plan that is damaged.
    """
    names = [plan_name(lease.run_id, Phase.IMAGES) for lease in leases]
    if any(lease.is_damaged for lease in leases):
        names = storage.list(PLANS_FOLDER, f"-{Phase.IMAGES}.parquet")
    found: list[pa.Table] = []
    is_whole = True
    for name in names:
        try:
            found.append(read_table(storage, name, ["unit_id", "rows.list.element.key"]))
        except FileNotFoundError:
            # It was ended before it planned, or had nothing to do.
            continue
        except DamagedFileError as error:
            is_whole = False
            note(
                f"{error}. Until then units of its run cannot be kept from being committed: if a "
                "process of that run may still live on another machine, stop it"
            )
    return EarlierPlans(units=tuple(found), is_whole=is_whole)


def find_rivals(
    earlier: EarlierPlans,
    *,
    settled: Collection[str],
    own_keys: Callable[[], Collection[str]],
) -> Rivals:
    """Return what workers of earlier runs could still commit.

    Args:
        earlier: From ``plans_of_earlier_runs``.
        settled: Ids of units that are committed, or that this run plans too.
        own_keys: Gives the keys of rows that nobody else may commit now.
    """
    pending: dict[str, set[str]] = {}
    for plan in earlier.units:
        is_open = [unit_id not in settled for unit_id in plan["unit_id"].to_pylist()]
        for unit in plan.filter(pa.array(is_open, pa.bool_())).to_pylist():
            pending[unit["unit_id"]] = {row["key"] for row in unit["rows"]}
    if not pending:
        return Rivals(unit_ids=frozenset(), others=not earlier.is_whole)
    own = own_keys()
    rivals = frozenset(unit_id for unit_id, keys in pending.items() if not keys.isdisjoint(own))
    others = len(rivals) < len(pending) or not earlier.is_whole
    return Rivals(unit_ids=rivals, others=others)


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
