"""Receipts: what the driver learns of a unit when it is committed, as values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipelines.units.message import UnitFacts


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
    """A committed unit. ``committed`` is False if another writer was first."""

    unit_id: str
    committed: bool
    rows: tuple[RowReceipt, ...]
    facts: UnitFacts

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
        )


def _row_receipt(row: dict[str, Any]) -> RowReceipt:
    return RowReceipt(
        method=row["method"],
        made=row["made"],
        stage=row["stage"],
        seconds=row["seconds"] or 0.0,
        unet_evaluations=row["unet_evaluations"] or 0,
        dino_min=row["dino_min"],
    )
