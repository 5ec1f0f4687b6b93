"""Storing: images under their keys, then the unit's one atomic commit.

Images are encoded here and not where they are sampled: sampling holds the dearest machine, raw
pixels cross between processes of one machine in a few milliseconds an image, and scoring
wants pixels. Images go first, so a committed row always has its file; a kill in between leaves
files that the next try writes again with the same names.

In a store that several runs share they go last: only the run whose unit is committed may write
them, or the file would show what another run made. A kill in between leaves a row whose file is
missing; the image is in the unit, and the next run that uses the store writes the file from there.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from clora_core.recipe.reading.syntax import read_prompt
from pipelines.leases.claims import Claimant
from pipelines.leases.lease import Fence
from pipelines.leases.unit_claims import UnitClaims, set_aside_meanwhile
from pipelines.ledger.tries import TryMarks
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import image_name, restore_images_of
from pipelines.units.committed_unit import (
    UnitFooter,
    encode_errors,
    encode_unit,
    errors_name,
    read_unit,
    rows_name,
)
from pipelines.units.message import UnitMessage
from pipelines.units.png import encode_png
from pipelines.units.schemas import ERRORS, RECEIPTS, ROWS


@dataclass(frozen=True, kw_only=True)
class CommitUnits:
    """Where units are committed, and under which run.

    Attributes:
        storage: The output.
        run_id: Names the run in every row.
        dino_digest: Identity of the scorer's model, or None.
        fence: Asked before a unit is written; None for an output without a lease.
        is_shared: Other runs may commit the same units at the same time.
    """

    storage: Storage
    run_id: str
    dino_digest: str | None
    fence: Fence | None = None
    is_shared: bool = False

    @property
    def claims(self) -> UnitClaims | None:
        """Where units are claimed before they are made; None where one run has them all."""
        claimant = Claimant(storage=self.storage, run_id=self.run_id)
        return UnitClaims(claimant=claimant) if self.is_shared else None

    @property
    def attempts(self) -> TryMarks:
        """Where tries of units are marked: beside what is committed."""
        return TryMarks(storage=self.storage, run_id=self.run_id)

    def __call__(self, message: UnitMessage) -> pa.Table:
        """Commit a unit; return its receipt (``schemas.RECEIPTS``)."""
        return commit_unit(message, self, now=datetime.now(UTC))


def commit_unit(message: UnitMessage, into: CommitUnits, *, now: datetime) -> pa.Table:
    """Commit a unit with its images, and return its receipt.

    A unit that another writer has committed stays as that one made it, and the receipt tells of
    what is committed: the promise is one row a key, not one try.
    """
    values = _values(message.rows)
    if message.facts.held_by:
        return _receipt(message, values, committed=False, made=set(), errors=[])
    storage = into.storage
    name = rows_name(message.unit_id)
    facts: dict[str, Any] = {}
    ours: tuple[list[str], UnitFooter] | None = None
    # Whoever comes second must not even touch the images that the committed rows tell of.
    if not storage.exists(name):
        if into.fence is not None:
            into.fence.check()
        start = time.perf_counter()
        rows = _output_rows(message, values, into, now)
        facts["encode_seconds"] = time.perf_counter() - start
        images = {row["image"]["path"]: row["image"]["bytes"] for row in rows}
        if not into.is_shared:
            storage.put_all(images)
        footer = UnitFooter(
            unit_id=message.unit_id,
            run_id=into.run_id,
            errors=[
                _error(row, message.unit_id, into.run_id)
                for row in values
                if row["failure"] is not None
            ],
            failed_at_ms=int(now.timestamp() * 1000),
            image_sizes=[len(row["image"]["bytes"]) for row in rows],
        )
        content = encode_unit(pa.Table.from_pylist(rows, schema=ROWS), footer)
        if storage.put_if_absent(name, content):
            ours = [row["key"] for row in rows], footer
            if into.is_shared:
                storage.put_all(images)
        facts["output_bytes"] = len(content) + sum(map(len, images.values()))
        facts["write_seconds"] = time.perf_counter() - start - facts["encode_seconds"]
    keys, footer = ours or read_unit(storage, name)
    if into.is_shared and ours is None:
        if footer.is_abandoned:
            raise StorageError(set_aside_meanwhile(storage, name))
        if footer.run_id == into.run_id:
            # An earlier try of this run committed it, and may not have come to its images.
            lost = [key for key in keys if not storage.exists(image_name(key))]
            restore_images_of(storage, name, lost)
    if footer.errors:
        storage.put(errors_name(message.unit_id), encode_errors(footer))
    into.attempts.end(message.unit_id)
    done = message.with_facts(message.rows, **facts)
    return _receipt(done, values, committed=ours is not None, made=set(keys), errors=footer.errors)


def _values(rows: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as values, but for the pixels, which stay where they are."""
    if "pixels" not in rows.column_names:
        return rows.to_pylist()
    values = rows.drop_columns(["pixels"]).to_pylist()
    for row, pixels in zip(values, rows["pixels"], strict=True):
        row["pixels"] = pixels.as_buffer()
    return values


def _output_rows(
    message: UnitMessage, values: Sequence[Mapping[str, Any]], into: CommitUnits, now: datetime
) -> list[dict[str, Any]]:
    """Return the rows that have an image as values of ``schemas.ROWS``."""
    facts = message.facts
    rows: list[dict[str, Any]] = []
    for row in values:
        if row["failure"] is None:
            image = encode_png(row, versions_json=facts.versions_json)
            rows.append(
                {
                    **row,
                    **_prompts_as_read(row),
                    "unit_id": message.unit_id,
                    "run_id": into.run_id,
                    "image": {"bytes": image, "path": image_name(row["key"])},
                    "image_sha256": hashlib.sha256(image).hexdigest(),
                    "peak_memory_bytes": facts.peak_memory_bytes,
                    "dino_digest": into.dino_digest,
                    "versions_json": facts.versions_json,
                    "device": facts.device,
                    "made_at": now,
                }
            )
    return rows


def _prompts_as_read(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the prompts of a row were read, triggers not counted."""
    syntax = json.loads(row["sampler_json"]).get("prompt_syntax", "plain")
    columns = ("prompt", "negative_prompt") if syntax == "weighted" else ()
    return {
        "prompt_syntax": syntax,
        "emphasis": [
            {"column": column, "words": words, "weight": weight}
            for column in columns
            for words, weight in read_prompt(row[column], syntax).emphasised()
        ],
    }


def _error(row: Mapping[str, Any], unit_id: str, run_id: str) -> dict[str, Any]:
    names = [lora["name"] for lora in row["loras"]]
    values = {**row, **row["failure"], "loras": names, "unit_id": unit_id, "run_id": run_id}
    return {name: values[name] for name in ERRORS.names if name != "failed_at"}


def _receipt(
    message: UnitMessage,
    values: list[dict[str, Any]],
    *,
    committed: bool,
    made: set[str],
    errors: Sequence[Mapping[str, Any]],
) -> pa.Table:
    stages = {error["key"]: error["stage"] for error in errors}
    receipt = {
        "unit_id": message.unit_id,
        "committed": committed,
        "rows": [
            {**row, "made": row["key"] in made, "stage": stages.get(row["key"])} for row in values
        ],
        "facts_json": message.facts.to_json(),
    }
    return pa.Table.from_pylist([receipt], schema=RECEIPTS)
