"""What a run is in writing: its record when it begins, and where its rows are when it ends."""

from collections.abc import Callable
from datetime import UTC, datetime

from pipelines.accounting import Account, take_account
from pipelines.asked_rows import write_asked
from pipelines.damages import Damages
from pipelines.ledger import Ledger
from pipelines.plan import Plan
from pipelines.request import RunRequest
from pipelines.run_record import RunRecord, read_run_records, write_run_record

__all__ = ["manifest_account", "new_record", "record_nothing_to_make"]


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


def record_nothing_to_make(
    request: RunRequest, account: Account, run_id: str, *, note: Callable[[str], None]
) -> None:
    """Record that a manifest was asked for of which nothing is to be made, if it is another one.

    What an output is asked for is what its latest run was asked for.
    """
    records = read_run_records(request.storage, skip=Damages(note=note).skip)
    name = write_asked(request.storage, request.rows)
    if records and records[-1]["manifest"] == name:
        return
    record = new_record(request, run_id)
    record.manifest, record.account, record.state = name, account, "finished"
    record.finished_at = record.started_at
    write_run_record(request.storage, record)


def manifest_account(request: RunRequest, plan: Plan, before: Ledger, after: Ledger) -> Account:
    """Return where the manifest's rows are."""
    return take_account(
        (row.key for row in request.rows), before=before, after=after, given_up=plan.quarantined
    )
