"""Receipts: what the driver learns of a unit or an adapter when it is committed, as values."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from clora_core.recipe.errors import Stage
from clora_core.results import RowFailure
from pipelines.units.message import UnitFacts
from pipelines.units.schemas import RECEIPTS


class Phase(StrEnum):
    """What a run makes, in this order."""

    REFERENCES = "references"
    FUSIONS = "fusions"
    IMAGES = "images"


@dataclass(frozen=True, kw_only=True)
class RowReceipt:
    """One row of a committed unit; ``stage`` is where it failed, None if it was made."""

    method: str
    made: bool
    stage: str | None
    seconds: float
    unet_evaluations: int
    dino_min: float | None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A committed unit, or a fused adapter as a unit of one row under its key.

    Attributes:
        unit_id: The unit.
        committed: False if another writer was first.
        rows: What became of each.
        facts: What making it took.
        failure: Why there is no adapter; rows of units say so in what is committed.
    """

    unit_id: str
    committed: bool
    rows: tuple[RowReceipt, ...]
    facts: UnitFacts
    failure: RowFailure | None = None

    @property
    def num_made(self) -> int:
        """Rows of the unit that have an image."""
        return sum(row.made for row in self.rows)

    @property
    def num_failed(self) -> int:
        """Rows of the unit that have none."""
        return len(self.rows) - self.num_made


def read_receipts(batch: pa.Table) -> Iterator[Receipt]:
    """Yield the receipts of a table of ``schemas.RECEIPTS``."""
    for value in batch.to_pylist():
        yield Receipt(
            unit_id=value["unit_id"],
            committed=value["committed"],
            rows=tuple(_row_receipt(row) for row in value["rows"]),
            facts=UnitFacts(**json.loads(value["facts_json"])),
            failure=_failure(value["failure"]),
        )


def receipt_table(receipt: Receipt) -> pa.Table:
    """Return a table of ``schemas.RECEIPTS`` from which ``read_receipts`` reads the receipt."""
    value = {
        "unit_id": receipt.unit_id,
        "committed": receipt.committed,
        "rows": [asdict(row) for row in receipt.rows],
        "facts_json": receipt.facts.to_json(),
        "failure": None if receipt.failure is None else asdict(receipt.failure),
    }
    return pa.Table.from_pylist([value], schema=RECEIPTS)


def _failure(value: dict[str, Any] | None) -> RowFailure | None:
    return None if value is None else RowFailure(**{**value, "stage": Stage(value["stage"])})


def _row_receipt(row: dict[str, Any]) -> RowReceipt:
    return RowReceipt(
        method=row["method"],
        made=row["made"],
        stage=row["stage"],
        seconds=row["seconds"] or 0.0,
        unet_evaluations=row["unet_evaluations"] or 0,
        dino_min=row["dino_min"],
    )
