"""Rows on their way through the engine: from the manifest's value to Arrow, and to the composer's.

Arrow is what is planned, stored and sent; the composer's value is built on the machine that needs
it, where a LoRA's URI becomes a local file.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pyarrow as pa

from clora_core.config import SamplerConfig
from clora_core.rows import ComposeRow, LoraUse, Region
from manifests.regions import region_arguments
from manifests.resolved import ResolvedRow
from pipelines.schemas import PLANNED_ROW

__all__ = ["PlannedRow", "compose_row", "row_table"]

PlannedRow = Mapping[str, Any]
"""A row of ``schemas.PLANNED_ROW`` as Python values."""

_ROWS_PER_CHUNK = 10_000


def row_table(rows: Iterable[ResolvedRow]) -> pa.Table:
    """Return the rows as a table of ``schemas.PLANNED_ROW``, every attempt 1, in order."""
    chunks: list[pa.RecordBatch] = []
    pending: list[dict[str, Any]] = []

    def flush() -> None:
        if pending:
            chunks.append(pa.RecordBatch.from_pylist(pending, schema=PLANNED_ROW))
            pending.clear()

    for row in rows:
        pending.append({**asdict(row), "attempt": 1})
        if len(pending) == _ROWS_PER_CHUNK:
            flush()
    flush()
    return pa.Table.from_batches(chunks, schema=PLANNED_ROW)


def compose_row(row: PlannedRow, *, local_path: Callable[[str], str]) -> ComposeRow:
    """Return the row as the composer takes it.

    Args:
        row: A planned row whose LoRA files have no problem.
        local_path: Brings the URI of a LoRA or a mask to this machine.
    """
    return ComposeRow(
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        loras=tuple(_lora_use(lora, local_path) for lora in row["loras"]),
        seed=row["seed"],
        method=row["method"],
        sampler=_sampler(row["sampler_json"]),
        width=row["width"],
        height=row["height"],
    )


def _lora_use(lora: Mapping[str, Any], local_path: Callable[[str], str]) -> LoraUse:
    region_json = lora["region_json"]
    region = None
    if region_json is not None:
        region = Region(**region_arguments(region_json, local_path=local_path))
    return LoraUse(
        name=lora["name"],
        path=local_path(lora["uri"]),
        digest=lora["digest"],
        kind=lora["kind"],
        weight=lora["weight"],
        subject=lora["subject"],
        trigger=lora["trigger"],
        region=region,
    )


@lru_cache(maxsize=256)
def _sampler(sampler_json: str) -> SamplerConfig:
    return SamplerConfig.model_validate_json(sampler_json)
