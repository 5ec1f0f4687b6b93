"""The record of a run: one JSON file in ``runs/``, written when it starts and when it ends.

It tells what was asked, with what, and how it came out, for people and for ``status``. Nothing is
decided by it: what is made is what is committed. A run that was killed stays ``running`` here.
"""

import json
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipelines.accounting import Account
from pipelines.receipts import Receipt
from pipelines.storage import Storage

__all__ = [
    "RUNS_FOLDER",
    "PhaseTotals",
    "RunRecord",
    "RunState",
    "new_run_id",
    "read_run_records",
    "write_run_record",
]

RUNS_FOLDER = "runs"

RunState = Literal["running", "finished", "interrupted", "failed", "stopped", "superseded"]
"""``stopped`` by its failure budget; ``superseded`` by a later run that took it for dead."""


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
        for name in (
            "generate_seconds",
            "model_load_seconds",
            "lora_load_seconds",
            "score_seconds",
            "encode_seconds",
            "write_seconds",
            "model_loads",
            "lora_hits",
            "lora_misses",
            "lora_evictions",
            "lora_copies",
            "output_bytes",
            "rows_tried_alone",
        ):
            setattr(self, name, getattr(self, name) + getattr(facts, name))


@dataclass(kw_only=True)
class RunRecord:
    """A run from its start to its end; times are ISO 8601, UTC.

    Attributes:
        run_id: Sorts by start time.
        state: ``running`` also for a run that was killed.
        num_rows: Rows of the manifest.
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
    base_models: Mapping[str, str] = field(default_factory=dict[str, str])
    state: RunState = "running"
    finished_at: str | None = None
    host: str = field(default_factory=platform.node)
    phases: dict[str, PhaseTotals] = field(default_factory=dict[str, PhaseTotals])
    account: Account | None = None
    error: str | None = None


def new_run_id(now: datetime) -> str:
    """Return a run id: the time, and something that keeps two runs of one second apart."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def write_run_record(storage: Storage, record: RunRecord) -> str:
    """Write the record; return its name."""
    name = f"{RUNS_FOLDER}/{record.run_id}.json"
    storage.put(name, json.dumps(asdict(record), indent=2).encode())
    return name


def read_run_records(storage: Storage) -> list[dict[str, Any]]:
    """Return all records of an output as plain values, oldest first."""
    return [json.loads(storage.read(name)) for name in storage.list(RUNS_FOLDER, ".json")]
