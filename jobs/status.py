"""``clora status``: how far an output is, read from the output alone.

It works from any machine that sees the folder, during a run and after, and also on what a killed
run left: counts come from what is committed, the rest from the record of the latest run.
"""

import sys
from collections.abc import Mapping
from typing import Any

from jobs.method_table import TABLE_COLUMNS, method_table
from manifests.locations import absolute
from pipelines.failure_budget import commonest_reasons
from pipelines.ledger import Ledger, LedgerError, read_ledger
from pipelines.output_table import read_rows
from pipelines.run_record import read_run_records
from pipelines.storage import Storage, StorageError, open_storage

__all__ = ["status"]

ALL_MADE = 0
SOME_MISSING = 1


def status(output: str) -> int:
    """Print the state of ``output``; return 0 if the latest run's rows are all made, else 1."""
    try:
        storage = open_storage(absolute(output, beside="."))
        ledger = read_ledger(storage)
        records = read_run_records(storage)
    except (StorageError, LedgerError) as error:
        print(error, file=sys.stderr)
        return SOME_MISSING
    if not records and not ledger.made:
        print(f"{output}: no run has written here", file=sys.stderr)
        return SOME_MISSING
    print(_described(storage, ledger, records[-1] if records else None))
    is_complete = bool(records) and records[-1]["num_rows"] <= _num_settled(records[-1], ledger)
    return ALL_MADE if is_complete and not ledger.failed else SOME_MISSING


def _num_settled(record: Mapping[str, Any], ledger: Ledger) -> int:
    """Return how many of the latest run's rows have their image, as far as the output tells."""
    account = record["account"]
    if account is None:
        return len(ledger.made)
    return account["num_made"] + account["num_already_made"] + account["num_duplicates"]


def _described(storage: Storage, ledger: Ledger, record: Mapping[str, Any] | None) -> str:
    lines = [f"{len(ledger.made):,} images, {len(ledger.failed):,} rows failed"]
    if ledger.num_doubled:
        lines.append(f"{ledger.num_doubled:,} images are there twice, which must not be")
    if record is not None:
        lines.append(
            f"latest run {record['run_id']}: {record['state']}, {record['num_rows']:,} rows, "
            f"began {record['started_at']} on {record['host']}"
        )
        if record["state"] == "running":
            lines.append("  (a run that was killed says so too; the same command goes on)")
        lines += [
            f"  {phase}: {totals['num_made']:,} made, {totals['num_failed']:,} failed of "
            f"{totals['num_planned']:,} planned"
            for phase, totals in record["phases"].items()
        ]
    table = method_table(read_rows(storage, TABLE_COLUMNS))
    if table:
        lines += ["", table]
    if ledger.last_errors:
        lines += ["", "why rows failed:", *commonest_reasons(ledger.last_errors.values())]
    return "\n".join(lines)
