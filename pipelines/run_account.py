"""What a run is in writing: its record when it begins, and where its rows are when it ends."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from manifests.rows.table import lora_values
from pipelines.ledger.account import Account, take_account
from pipelines.ledger.asked_rows import asked_name, write_asked
from pipelines.ledger.error_tables import restore_errors
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.run_record import RunRecord, RunState, read_run_records, write_run_record
from pipelines.outputs.listed_rows import ListedRows
from pipelines.outputs.publish import is_published, publish
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


def is_all_there(request: RunRequest, planned: Planned, *, note: Callable[[str], None]) -> bool:
    """Return whether nothing is to be made, and what a run leaves for people says so."""
    if planned.plan.num_rows:
        return False
    records = read_run_records(request.storage, skip=Damages(note=note).skip)
    is_asked = bool(records) and records[-1]["manifest"] == asked_name(request.rows)
    return is_asked and is_published(request.storage, planned.ledger, request.references_folder)


def nothing_to_make(
    request: RunRequest,
    planned: Planned,
    run_id: str,
    *,
    publishes: bool = False,
    note: Callable[[str], None],
) -> Account:
    """Return the account of a manifest of which nothing is to be made.

    It is recorded if it is another one than the last: what an output is asked for is what its
    latest run was asked for.

    Args:
        request: What is asked for.
        planned: The empty plan.
        run_id: Of the record.
        publishes: Write what a run leaves for people; an earlier run may not have come to it.
        note: Gets sentences that the user should see.
    """
    storage = request.storage
    restore_errors(storage, planned.ledger)
    account = manifest_account(request, planned, planned.ledger)
    damages = Damages(note=note)
    records = read_run_records(storage, skip=damages.skip)
    record = new_record(request, run_id)
    record.manifest, record.account, record.state = (
        write_asked(storage, request.rows),
        account,
        RunState.FINISHED,
    )
    record.finished_at = record.started_at
    if not records or records[-1]["manifest"] != record.manifest:
        write_run_record(storage, record)
    if publishes:
        publish_run(request, record, account, planned.ledger, damages)
    return account


def publish_run(
    request: RunRequest,
    record: RunRecord,
    account: Account,
    ledger: Ledger,
    damages: Damages,
    listed: ListedRows | None = None,
) -> None:
    """Write what a run leaves for people beside its data."""
    publish(
        request.storage,
        record=asdict(record),
        account=account,
        ledger=ledger,
        loras=loras_of(request.rows),
        references_folder=request.references_folder,
        references=request.references_storage if request.references else None,
        damages=damages,
        listed=listed,
    )


def loras_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the LoRAs of the rows as values, each once, by name."""
    kinds = StoredRows.of(rows).kinds()
    found = {lora.digest: lora_values(lora) for row, _ in kinds for lora in row.loras}
    return sorted(found.values(), key=lambda lora: lora["name"])


def manifest_account(request: RunRequest, planned: Planned, after: Ledger) -> Account:
    """Return where the manifest's rows are."""
    return take_account(
        StoredRows.of(request.rows).tables(),
        before=planned.ledger,
        after=after,
        given_up=planned.plan.quarantined,
    )
