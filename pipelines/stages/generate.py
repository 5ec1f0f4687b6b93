"""Generating: a unit's rows through the composer, every row to an image or a reason.

A bad row is data and a broken machine is an exception, but a machine's exception does not say which
it was: an out-of-memory may be one huge row. So a unit that fails as a whole is tried row by row,
and what fails alone is that row's failure. A base model that cannot be loaded is no row's fault, so
that is raised and ends the run loudly. Nor is a device that is lost, which fails everything after
it: that is raised and ends the process, see ``leaving``. A row that ends the process is found by
the marks that tries leave, see ``ledger.tries``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from clora_core.recipe.errors import Stage
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from manifests.loras.local_lora import local_lora
from manifests.places.file_cache import local_copy
from manifests.places.locations import LocationError, StoreAwayError
from manifests.rows.table import rows_of
from pipelines.fusing.fused_source import FusedSource
from pipelines.ledger.tries import TryMarks, UnitTries
from pipelines.stages.leaving import device_is_lost
from pipelines.stages.model_host import ModelHost
from pipelines.units.message import HostUse, UnitMessage
from pipelines.units.schemas import GENERATED, RESULT

MAX_MESSAGE_LENGTH = 2_000

Compose = Callable[[Sequence[Row]], list[ComposedImage | RowFailure]]


@dataclass(frozen=True, kw_only=True)
class PreparedUnit:
    """A unit whose files are on this machine.

    Attributes:
        message: The unit as it was planned; its rows have one base model.
        base_model_digest: Of its rows.
        rows: What the composer takes, or why a row never gets there.
        tries: Earlier tries of the unit; None where tries are not marked.
    """

    message: UnitMessage
    base_model_digest: str
    rows: Sequence[Row | RowFailure]
    tries: UnitTries | None


@dataclass(frozen=True, kw_only=True)
class SampledUnit:
    """What became of a unit's rows, in order, and of the unit (``UnitFacts``, by name)."""

    planned: UnitMessage
    results: Sequence[ComposedImage | RowFailure]
    facts: Mapping[str, Any]

    def message(self) -> UnitMessage:
        """Return the unit with rows of ``schemas.GENERATED``."""
        results = [_result_row(result) for result in self.results]
        return self.planned.with_facts(generated_table(self.planned.rows, results), **self.facts)


def generate_unit(
    message: UnitMessage,
    host: ModelHost,
    attempts: TryMarks | None = None,
    *,
    fused: FusedSource | None = None,
) -> UnitMessage:
    """Return the unit with its images or failures, and what making them took.

    Args:
        message: The unit; its rows have one base model.
        host: What makes it.
        attempts: Where its tries are marked; None for nowhere.
        fused: Where rows of fused methods get their adapters; None if there are no such rows.
    """
    return sample_unit(prepare_unit(message, attempts, fused=fused), host, attempts).message()


def prepare_unit(
    message: UnitMessage, attempts: TryMarks | None, *, fused: FusedSource | None
) -> PreparedUnit:
    """Return the unit ready to be sampled; nothing says yet that it was begun."""
    rows = rows_of(message.rows)
    return PreparedUnit(
        message=message,
        base_model_digest=rows[0].base_model_digest,
        rows=[_prepare(row, fused) for row in rows],
        tries=None if attempts is None else attempts.look(message.unit_id),
    )


def sample_unit(unit: PreparedUnit, host: ModelHost, attempts: TryMarks | None) -> SampledUnit:
    """Sample a unit under the mark of a try.

    Raises:
        Exception: The base model cannot be loaded, or the device is lost.
    """
    before = host.use()
    host.hold(unit.base_model_digest)
    start = time.perf_counter()
    if attempts is not None:
        attempts.mark(unit.message.unit_id)
    if attempts is None or unit.tries is None or not unit.tries.one_by_one:
        results, num_alone = compose_rows(unit.rows, host.compose)
    else:
        results = _compose_alone(unit, unit.tries, host.compose, attempts)
        num_alone = len(results)
    facts = {
        "generate_seconds": time.perf_counter() - start,
        "rows_tried_alone": num_alone,
        "device": host.device,
        "versions_json": host.versions_json,
        **_changes(before, host.use()),
    }
    return SampledUnit(planned=unit.message, results=results, facts=facts)


def generated_table(planned: pa.Table, results: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return ``planned`` (``schemas.PLANNED_ROW``) with its results, as ``schemas.GENERATED``."""
    made = pa.Table.from_pylist(list(results), schema=RESULT)
    return pa.table([*planned.columns, *made.columns], schema=GENERATED)


def compose_rows(
    rows: Sequence[Row | RowFailure], compose: Compose
) -> tuple[list[ComposedImage | RowFailure], int]:
    """Return what becomes of prepared rows, in order, and how many were tried alone.

    Raises:
        Exception: The device is lost.
    """
    made, num_alone = _compose_each([row for row in rows if isinstance(row, Row)], compose)
    coming = iter(made)
    return [row if isinstance(row, RowFailure) else next(coming) for row in rows], num_alone


def _compose_alone(
    unit: PreparedUnit, tries: UnitTries, compose: Compose, attempts: TryMarks
) -> list[ComposedImage | RowFailure]:
    """Return each row made under a mark of its own, or failed if it died under one before."""
    results: list[ComposedImage | RowFailure] = []
    for row in unit.rows:
        if isinstance(row, RowFailure):
            results.append(row)
        elif deaths := tries.deaths_alone.get(row.key, 0):
            message = (
                f"the process that made it died {tries.number - 1} times, {deaths} of them with "
                "nothing but this row to do; it may need more memory than there is, or crash the "
                "driver (see Ray's worker logs), so make it smaller or on another machine"
            )
            results.append(RowFailure(stage=Stage.PROCESS, error="ProcessDied", message=message))
        else:
            mark = attempts.begin_row(unit.message.unit_id, row.key)
            (result,), _ = compose_rows([row], compose)
            attempts.end_row(mark)
            results.append(result)
    return results


def _prepare(row: Row, fused: FusedSource | None) -> Row | RowFailure:
    """Return what the composer takes; a row whose LoRA file cannot be used never gets there."""
    if row.problem is not None:
        return RowFailure(stage=Stage.LORA, error="LoraFileError", message=row.problem)
    try:
        if fused is not None:
            prepared = fused.prepare(row)
            if isinstance(prepared, RowFailure):
                return prepared
            row = prepared
        return row.with_local_files(
            local_lora=lambda uri: str(local_lora(uri)), local_mask=lambda uri: str(local_copy(uri))
        )
    except (LocationError, StoreAwayError) as error:
        return RowFailure(stage=Stage.LORA, error=type(error).__name__, message=str(error))


def _compose_each(
    rows: Sequence[Row], compose: Compose
) -> tuple[list[ComposedImage | RowFailure], int]:
    if not rows:
        return [], 0
    try:
        return compose(rows), 0
    except Exception as error:  # what else a row can fail of has no class in common
        if device_is_lost(error):
            raise
        if len(rows) == 1:
            return [_failure(error)], 1
    return [_compose_each([row], compose)[0][0] for row in rows], len(rows)


def _failure(error: Exception) -> RowFailure:
    return RowFailure(stage=Stage.GENERATE, error=type(error).__name__, message=str(error))


def _result_row(result: ComposedImage | RowFailure) -> dict[str, Any]:
    if isinstance(result, RowFailure):
        message = result.message[:MAX_MESSAGE_LENGTH] or result.error
        return {"failure": {"stage": result.stage, "error": result.error, "message": message}}
    diagnostics = asdict(result.diagnostics)
    losses = diagnostics.pop("losses")
    return {
        "pixels": result.image.tobytes(),
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "num_updates": len(losses),
        **diagnostics,
    }


def _changes(before: HostUse, after: HostUse) -> dict[str, float]:
    """Return by name what was counted in between, and the two that are as of now."""
    now = {name: getattr(after, name) for name in ("lora_cache_bytes", "peak_memory_bytes")}
    counted = asdict(after).items()
    return {name: value - getattr(before, name) for name, value in counted} | now
