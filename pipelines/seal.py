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

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.committed_unit import UnitFooter, encode_unit, rows_name
from pipelines.lease_record import LeaseRecord
from pipelines.schemas import ROWS
from pipelines.storage import Storage

__all__ = ["Rivals", "find_rivals", "plan_name", "plans_of_earlier_runs", "seal_units"]


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Units that an earlier run planned, and neither it committed nor the new run plans.

    Attributes:
        unit_ids: Those that hold a row of the new plan.
        others: Whether there are any that hold none. They can do no harm now, but a later run
            has to look at them again.
    """

    unit_ids: frozenset[str]
    others: bool


def plan_name(run_id: str, phase: str) -> str:
    """Return the name of a run's plan: ``images`` or ``references``."""
    return f"plans/{run_id}-{phase}.parquet"


def plans_of_earlier_runs(storage: Storage, leases: Iterable[LeaseRecord]) -> list[pa.Table]:
    """Return unit ids and row keys of what the runs of ``leases`` planned, committed or not."""
    found: list[pa.Table] = []
    for lease in leases:
        try:
            with (
                storage.open(plan_name(lease.run_id, "images")) as source,
                pq.ParquetFile(source) as file,
            ):
                found.append(file.read(columns=["unit_id", "rows.list.element.key"]))
        except FileNotFoundError:
            # It was ended before it planned, or had nothing to do.
            continue
    return found


def find_rivals(
    earlier: Iterable[pa.Table],
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
    for plan in earlier:
        is_open = [unit_id not in settled for unit_id in plan["unit_id"].to_pylist()]
        for unit in plan.filter(pa.array(is_open, pa.bool_())).to_pylist():
            pending[unit["unit_id"]] = {row["key"] for row in unit["rows"]}
    if not pending:
        return Rivals(unit_ids=frozenset(), others=False)
    own = own_keys()
    rivals = frozenset(unit_id for unit_id, keys in pending.items() if not keys.isdisjoint(own))
    return Rivals(unit_ids=rivals, others=len(rivals) < len(pending))


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
