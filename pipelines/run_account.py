"""What a run is in writing: its record when it begins, and where its rows are when it ends."""

from collections.abc import Callable
from datetime import UTC, datetime

from pipelines.ledger.account import Account, take_account
from pipelines.ledger.asked_rows import write_asked
from pipelines.ledger.ledger import Ledger, restore_errors
from pipelines.ledger.run_record import RunRecord, RunState, read_run_records, write_run_record
from pipelines.request import RunRequest
from pipelines.run_plan import Planned
from pipelines.units.damages import Damages


def new_record(request: RunRequest, run_id: str) -> RunRecord:
    """Return the record of a run that begins now."""
    return RunRecord(
        run_id=run_id,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        num_rows=len(request.rows),
        only_failed=request.only_failed,
        job=request.job,
        digests={"base_model": request.base_model_digest, "dino": request.dino_digest},
        base_models=request.base_models,
    )


def nothing_to_make(
    request: RunRequest, planned: Planned, run_id: str, *, note: Callable[[str], None]
) -> Account:
    """Return the account of a manifest of which nothing is to be made.

    It is recorded if it is another one than the last: what an output is asked for is what its
    latest run was asked for.
    """
    storage = request.storage
    restore_errors(storage, planned.ledger)
    account = manifest_account(request, planned, planned.ledger)
    records = read_run_records(storage, skip=Damages(note=note).skip)
    name = write_asked(storage, request.rows)
    if not records or records[-1]["manifest"] != name:
        record = new_record(request, run_id)
        record.manifest, record.account, record.state = name, account, RunState.FINISHED
        record.finished_at = record.started_at
        write_run_record(storage, record)
    return account


def manifest_account(request: RunRequest, planned: Planned, after: Ledger) -> Account:
    """Return where the manifest's rows are."""
    return take_account(
        (row.key for row in request.rows),
        before=planned.ledger,
        after=after,
        given_up=planned.plan.quarantined,
    )
