"""What a run is going to make: its plan, and the same after earlier runs are shut out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from manifests.tables.spool import Spool
from pipelines.fusing.plan import FusionPlan, plan_fusions
from pipelines.leases.lease import HeldLease
from pipelines.leases.lease_record import LeaseRecord, earlier_leases
from pipelines.leases.seal import find_rivals, plans_of_earlier_runs, seal_units
from pipelines.ledger.asked_rows import asked_keys
from pipelines.ledger.ledger import Ledger, read_ledger
from pipelines.ledger.run_record import read_run_records
from pipelines.planning.pending import FAILURES, KEYS, Rules
from pipelines.planning.plan import Plan
from pipelines.planning.plan_units import plan_tables, plan_units
from pipelines.planning.references import (
    SEEDS_PER_BLOCK,
    block_of,
    reference_rows,
    whole_blocks,
)
from pipelines.request import RunRequest
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages

if TYPE_CHECKING:
    from pipelines.distributed.rows import ClusterRows


MANY_ROWS = 1_000_000
"""Planning them takes long enough to say so."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a run is to make, and what it was planned from.

    Attributes:
        ledger: Of the output.
        plan: Of the manifest's rows, made from the ledger.
        is_sealed: Later runs need not look at the plans before this one; see ``seal``.
    """

    ledger: Ledger
    plan: Plan
    is_sealed: bool = False


def plan_rows(
    request: RunRequest, ledger: Ledger, *, note: Callable[[str], None] = lambda _: None
) -> Plan:
    """Return the plan of the manifest's rows, given what is made and what failed.

    With ``only_failed`` these are the rows that failed, and those that are new since the last run
    of the whole manifest: a row that was corrected is another row.

    Args:
        request: What is asked for.
        ledger: Of the output.
        note: Gets a sentence for each record of a run that is damaged, and one if it takes long.
    """
    if len(request.rows) >= MANY_ROWS:
        note(f"{len(request.rows):,} rows are checked, and are planned now")
    asked = _asked_before(request.storage, note) if request.only_failed else None
    rows = StoredRows.of(request.rows)
    plan = partial(plan_tables, rows)
    if not isinstance(rows.source, Spool):
        # Imported late: Ray reads its environment when it is imported.
        from pipelines.distributed.plan import plan_on_ray

        plan = partial(plan_on_ray, cast("ClusterRows", rows.source))
    return plan(
        made=ledger.made_tables(),
        failures=ledger.failures.select(FAILURES.names),
        rules=Rules(attempts=request.attempts, only_failed=request.only_failed),
        rows_per_unit=request.resources.rows_per_unit,
        abandoned=ledger.abandoned,
        asked_before=asked,
    )


def _asked_before(storage: Storage, note: Callable[[str], None]) -> list[pa.Table] | None:
    """Return the keys that the last run of a whole manifest was asked for; None if unknown.

    A row that failed and was corrected has another key, which is not among them.
    """
    damages = Damages(note=note)
    records = read_run_records(storage, skip=damages.skip)
    names = [record["manifest"] for record in records if not record["only_failed"]]
    # A damaged record may be that of the last run.
    if damages.left_out or not names or names[-1] is None:
        return None
    keys = asked_keys(storage, names[-1], skip=damages.skip)
    return None if keys is None else [pa.table({"key": keys}, schema=KEYS)]


def plan_references(request: RunRequest, rows: Plan) -> Plan | None:
    """Return the plan of the references that the planned ``rows`` need; None if none are used."""
    if not request.references or request.load_scorer is None:
        return None
    ledger = read_ledger(request.references_storage)
    return plan_units(
        reference_rows(rows.uses.concepts, whole_blocks(request.references)),
        made=ledger.made,
        failed=ledger.failed,
        abandoned=ledger.abandoned,
        rows_per_unit=SEEDS_PER_BLOCK,
        attempts=request.attempts,
        block_of=block_of,
    )


def plan_row_fusions(request: RunRequest, rows: Plan) -> FusionPlan:
    """Return the adapters that the planned ``rows`` need."""
    return plan_fusions(
        rows.uses.fused_rows(), request.fused_storage, dtype=request.resources.dtype
    )


def sealed_plan(
    request: RunRequest,
    lease: HeldLease,
    run_id: str,
    planned: Planned,
    seen: LeaseRecord | None,
    note: Callable[[str], None],
) -> Planned:
    """Return a plan after which no worker of an earlier run can commit a row twice.

    Args:
        request: What is asked for.
        lease: Of this run, just claimed.
        run_id: This run.
        planned: Before the lease was claimed.
        seen: The lease that was the latest then.
        note: Gets a sentence for each plan of an earlier run that is damaged.
    """
    storage = request.storage
    leases = earlier_leases(storage, lease.fence.epoch)
    earlier = plans_of_earlier_runs(storage, leases, note=note)
    is_current = lease.predecessor == seen
    while True:
        if not is_current:
            ledger = read_ledger(storage)
            planned = Planned(ledger=ledger, plan=plan_rows(request, ledger, note=note))
        plan = planned.plan
        settled = chain([planned.ledger.units], plan.unit_keys())
        rivals = find_rivals(earlier, settled=settled, own_keys=plan.unit_keys)
        if seal_units(storage, rivals.unit_ids, run_id=run_id):
            return replace(planned, is_sealed=not rivals.others)
        is_current = False


def wanted_references(request: RunRequest, plan: Plan) -> list[Row]:
    """Return the references that the planned rows are compared with, made or not."""
    return list(reference_rows(plan.uses.concepts, request.references))
