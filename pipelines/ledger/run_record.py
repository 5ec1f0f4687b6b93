"""The record of a run: one JSON file in ``runs/``, written when it starts and when it ends.

It says what was asked, with what, and how it came out, for people and for ``status``. What is made
is what is committed, whatever stands here. A run that was killed stays ``running`` here.
"""

import platform
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import partial
from types import NoneType
from typing import Any

from pipelines.ledger.account import Account
from pipelines.storage.storage import Storage
from pipelines.units.message import UnitFacts
from pipelines.units.output_files import DamagedFileError, encode_json, read_json
from pipelines.units.receipts import Phase, Receipt

RUNS_FOLDER = "runs"


class RunState(StrEnum):
    """How a run is, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    STOPPED = "stopped"
    """By its failure budget."""
    SUPERSEDED = "superseded"
    """By a later run that took it for dead."""


_TYPES: dict[str, Any] = {
    "run_id": str, "state": str, "started_at": str, "host": str, "num_rows": int,
    "manifest": (str, NoneType), "only_failed": bool, "job": dict, "digests": dict,
    "base_models": dict, "phases": dict, "account": (dict, NoneType),
}  # fmt: skip
"""What readers of a record rely on."""


@dataclass(kw_only=True)
class PhaseTotals:
    """Sums over the receipts of one phase of a run (references, or the manifest's rows)."""

    num_planned: int
    num_units: int
    num_made: int = 0
    num_failed: int = 0
    wall_seconds: float = 0.0
    generate_seconds: float = 0.0
    model_load_seconds: float = 0.0
    lora_load_seconds: float = 0.0
    score_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0
    unet_evaluations: int = 0
    model_loads: int = 0
    lora_hits: int = 0
    lora_misses: int = 0
    lora_evictions: int = 0
    lora_copies: int = 0
    output_bytes: int = 0
    peak_memory_bytes: int = 0
    rows_tried_alone: int = 0

    def add(self, receipt: Receipt) -> None:
        """Add a committed unit."""
        facts = receipt.facts
        self.num_made += receipt.num_made
        self.num_failed += receipt.num_failed
        self.unet_evaluations += sum(row.unet_evaluations for row in receipt.rows)
        self.peak_memory_bytes = max(self.peak_memory_bytes, facts.peak_memory_bytes)
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(facts, name))


_SUMMED = (
    {field.name for field in fields(PhaseTotals)} & {field.name for field in fields(UnitFacts)}
) - {"peak_memory_bytes"}
"""What the receipts of a phase add up to."""


@dataclass(kw_only=True)
class RunRecord:
    """A run from its start to its end; times are ISO 8601, UTC.

    Attributes:
        run_id: Sorts by start time.
        state: ``running`` also for a run that was killed.
        num_rows: Rows of the manifest.
        manifest: File of the output that lists them, see ``asked_rows``; None in records of
            earlier releases.
        only_failed: The run made the rows that had failed, or were corrected, and no others.
        job: The job as it was resolved.
        digests: Of the base model of rows that name none, and of the scorer's model.
        base_models: Digests of further base models, by the name that rows give them.
        phases: Totals by phase.
        account: Where the manifest's rows are at the end.
        error: What ended a run that failed.
    """

    run_id: str
    started_at: str
    num_rows: int
    job: Mapping[str, Any]
    digests: Mapping[str, str | None]
    manifest: str | None = None
    only_failed: bool = False
    base_models: Mapping[str, str] = field(default_factory=dict[str, str])
    state: RunState = RunState.RUNNING
    finished_at: str | None = None
    host: str = field(default_factory=platform.node)
    phases: dict[Phase, PhaseTotals] = field(default_factory=dict[Phase, PhaseTotals])
    account: Account | None = None
    error: str | None = None


def new_run_id(now: datetime) -> str:
    """Return a run id: the time, and something that keeps two runs of one moment apart.

    Ids sort as runs began, because the latest says what an output is asked for.
    """
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z-{secrets.token_hex(3)}"


def write_run_record(storage: Storage, record: RunRecord) -> str:
    """Write the record; return its name."""
    name = f"{RUNS_FOLDER}/{record.run_id}.json"
    storage.put(name, encode_json(asdict(record)))
    return name


def read_run_records(
    storage: Storage, *, skip: Callable[[DamagedFileError], None] | None = None
) -> list[dict[str, Any]]:
    """Return the records of an output as plain values, oldest first.

    Args:
        storage: The output.
        skip: Gets each damaged record, which is left out; None raises the first.

    Raises:
        DamagedFileError: A record is damaged, and there is no ``skip``.
    """
    records: list[dict[str, Any]] = []
    for name in storage.list(RUNS_FOLDER, ".json"):
        run_id = name.rpartition("/")[2].removesuffix(".json")
        try:
            records.append(read_json(storage, name, partial(_checked, run_id)))
        except DamagedFileError as error:
            if skip is None:
                raise
            skip(error)
    return records


def _checked(run_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a record if they have the types that readers rely on."""
    record = {"base_models": {}, "manifest": None, "only_failed": False, **values}
    if record["run_id"] != run_id:
        raise ValueError(f"the content of run {record['run_id']}")
    wanted = {name: isinstance(record[name], type_) for name, type_ in _TYPES.items()}
    if not all(wanted.values()):
        raise TypeError(f"no {', '.join(name for name, fits in wanted.items() if not fits)}")
    return record
