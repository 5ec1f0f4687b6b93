"""``clora status``: how far an output is, read from the output alone.

It works from any machine that sees the folder, during a run and after, and also on what a killed
run left. It speaks of the rows that the latest run was asked for; images and failures of earlier
manifests are counted apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.console.failures import TITLE
from jobs.console.method_table import TABLE_COLUMNS, method_table
from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.notes import note
from manifests.places.place_names import absolute, joined
from pipelines.ledger.account import Account, failures_among, take_account
from pipelines.ledger.asked_rows import asked_tables
from pipelines.ledger.failure_reasons import reason_lines
from pipelines.ledger.ledger import Ledger, survey
from pipelines.ledger.lost_images import damaged_images
from pipelines.ledger.run_record import RunState, read_run_records
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import ERRORS_FOLDER
from pipelines.units.damages import Damages
from pipelines.units.output_files import MISSING, DamagedFileError
from pipelines.units.output_table import read_output_rows

MAX_REASONS = 1000
"""A run lists ten and names this command for the rest."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The rows that the latest run was asked for.

    Attributes:
        failures: The last failure of each of them that has no image.
        account: Where they are now.
    """

    failures: pa.Table
    account: Account


@command(refused=SOME_FAILED)
def status(output: str) -> int:
    """Print the state of ``output``; return 0 if the latest run's rows are all made, else 1."""
    damages = Damages(note=note)
    storage = open_storage(absolute(output, beside="."))
    ledger = survey(storage)
    for damage in ledger.damaged:
        damages.skip(damage)
    records = read_run_records(storage, skip=damages.skip)
    if not records and not len(ledger.units) and not damages.left_out:
        note(f"{output}: no run has written here")
        return SOME_FAILED
    record = records[-1] if records else None
    asked = None if record is None else _asked(storage, record, ledger, damages)
    unsound = damaged_images(storage, ledger)
    rows = read_output_rows(storage, TABLE_COLUMNS, skip=damages.skip)
    print("\n".join([*_progress(asked, ledger), *_images(unsound), *_run(record)]))
    table = method_table(rows)
    if table:
        print(f"\n{table}")
    failures = ledger.failures if asked is None else asked.failures
    if len(failures):
        rest = f"{joined(storage.uri, ERRORS_FOLDER)} has every row's"
        reasons = reason_lines(failures.to_pylist(), rest=rest, most=MAX_REASONS)
        print("\n".join(["", TITLE, *reasons]))
    is_whole = not damages.left_out and not unsound
    return ALL_MADE if is_whole and _is_complete(asked, record, ledger) else SOME_FAILED


def _asked(
    storage: Storage, record: Mapping[str, Any], ledger: Ledger, damages: Damages
) -> _Asked | None:
    """Return what the latest run was asked for; None if its record does not say."""
    if record["manifest"] is None:
        return None
    name = record["manifest"]
    try:
        account = take_account(asked_tables(storage, name, ["key"]), before=ledger, after=ledger)
        failures = failures_among(asked_tables(storage, name, ["key"]), ledger.failures)
    except DamagedFileError as damage:
        damages.skip(damage)
        return None
    except FileNotFoundError:
        damages.skip(DamagedFileError(storage.uri, name, MISSING))
        return None
    return _Asked(failures=failures, account=account)


def _is_complete(asked: _Asked | None, record: Mapping[str, Any] | None, ledger: Ledger) -> bool:
    if asked is not None:
        return asked.account.is_complete
    # Records of earlier releases: how the run ended, and that nothing failed since.
    account = None if record is None else record["account"]
    if account is None or len(ledger.failures) or ledger.num_doubled:
        return False
    return not (account["num_failed"] or account["num_missing"] or account["num_doubled"])


def _progress(asked: _Asked | None, ledger: Ledger) -> list[str]:
    if asked is None:
        lines = [f"{ledger.num_made:,} images, {len(ledger.failures):,} rows failed"]
    else:
        account = asked.account
        equal = account.num_duplicates
        lines = [
            f"{account.num_already_made:,} of {account.num_rows - equal:,} rows made, "
            f"{account.num_failed:,} failed, {account.num_missing:,} not made yet"
            + (f" ({equal:,} more are equal to another row)" if equal else "")
        ]
        others = (
            ledger.num_made - account.num_already_made,
            len(ledger.failures) - account.num_failed,
        )
        if any(others):
            lines.append(
                f"beside them, of earlier manifests: {others[0]:,} images, {others[1]:,} rows "
                "that failed"
            )
    if ledger.num_doubled:
        lines.append(f"{ledger.num_doubled:,} images are duplicated: this is a bug; keep rows/")
    return lines


def _images(unsound: list[str]) -> list[str]:
    if not unsound:
        return []
    return [
        f"{len(unsound):,} image file(s) are missing or of another size "
        f"({image_name(unsound[0])}{', ...' if len(unsound) > 1 else ''}); `clora compose` writes "
        "them again from their rows"
    ]


def _run(record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return []
    lines = [
        f"latest run {record['run_id']}: {record['state']}, {record['num_rows']:,} rows, "
        f"began {record['started_at']} on {record['host']}"
    ]
    if record["state"] == RunState.RUNNING:
        lines.append("  (a run that was killed says so too; the same command continues it)")
    lines += [
        f"  {phase}: {totals['num_made']:,} made, {totals['num_failed']:,} failed of "
        f"{totals['num_planned']:,} planned"
        for phase, totals in record["phases"].items()
    ]
    return lines
