"""Committed units that hold keys and no images, written as quickly as a test of ledgers wants."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.ledger.ledger import Ledger
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import UnitFooter, encode_unit, rows_name
from pipelines.units.schemas import ROWS

_NULLS = {field.name: field.type for field in ROWS if field.name != "key"}


def text_key(number: int) -> str:
    """Return a key like a row's."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def put_unit(
    storage: Storage,
    unit_id: str,
    keys: Sequence[str],
    *,
    failed: Mapping[str, int] | None = None,
    run_id: str = "run-1",
    sizes: Sequence[int] = (),
    is_abandoned: bool = False,
) -> None:
    """Put a unit in place of what is there.

    Args:
        storage: The output.
        unit_id: The unit.
        keys: What it made.
        failed: What it did not make, and in which attempt.
        run_id: Who committed it.
        sizes: Of its images; none in earlier releases.
        is_abandoned: See ``seal``.
    """
    columns = {name: pa.nulls(len(keys), type_) for name, type_ in _NULLS.items()}
    rows = pa.table({"key": pa.array(keys, pa.string()), **columns}).select(ROWS.names)
    footer = UnitFooter(
        unit_id=unit_id,
        run_id=run_id,
        errors=[_error(key, n, unit_id, run_id) for key, n in (failed or {}).items()],
        failed_at_ms=1_000,
        is_abandoned=is_abandoned,
        image_sizes=list(sizes),
    )
    storage.put(rows_name(unit_id), encode_unit(rows.cast(ROWS), footer))


def ledger_values(ledger: Ledger) -> dict[str, Any]:
    """Return all that a ledger says, in an order of its own."""
    images = [
        (row["key"], row["image_size"]) for t in ledger.made_tables() for row in t.to_pylist()
    ]
    units = [tuple(row.values()) for row in ledger.units.to_pylist()]
    ids = pa.array([unit_id for unit_id, *_ in units], pa.string())
    assert all(ledger.is_committed(ids).to_pylist())
    assert not any(ledger.is_committed(pa.array(["no such unit", "f" * 64])).to_pylist())
    return {
        "made": set(ledger.made),
        "images": sorted(images, key=str),
        "num_made": ledger.num_made,
        "num_doubled": ledger.num_doubled,
        "failed": {key: (row.attempts, row.unit_id) for key, row in ledger.failed.items()},
        "last_errors": dict(ledger.last_errors),
        "num_errors": ledger.num_errors,
        "units": sorted(units),
        "abandoned": set(ledger.abandoned),
        "content_sha256": ledger.content_sha256,
        "damaged": [damage.name for damage in ledger.damaged],
    }


def _error(key: str, attempt: int, unit_id: str, run_id: str) -> dict[str, Any]:
    return {
        "key": key, "row_id": f"row {key[:4]}", "prompt": "a cat", "loras": ["cat"], "seed": 1,
        "method": "clora", "stage": "compose", "error": "Error", "message": f"try {attempt}",
        "attempt": attempt, "unit_id": unit_id, "run_id": run_id,
    }  # fmt: skip
