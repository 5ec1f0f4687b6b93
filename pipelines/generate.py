"""The generate stage: a unit's rows through the composer, every row to an image or a reason.

A bad row is data and a broken machine is an exception, but a machine's exception does not say which
it was: an out-of-memory may be one huge row. So a unit that fails as a whole is tried row by row,
and what fails alone is that row's failure. A base model that cannot be loaded is no row's fault, so
that is raised and ends the run loudly. Nor is a device that is lost, which fails everything after
it: that is raised and ends the process, see ``leaving``. A row that ends the process is found by
the marks that tries leave, see ``attempts``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from clora_core.errors import Stage
from clora_core.rows import ComposedImage, ComposeRow, RowFailure
from manifests.file_cache import local_copy
from manifests.locations import LocationError, StoreAwayError
from pipelines.actor_metrics import ActorMetrics
from pipelines.attempts import AttemptLog, UnitTries
from pipelines.engine import Engine
from pipelines.lease import Fence
from pipelines.leaving import device_is_lost, end_without_device, give_up_when_terminated
from pipelines.planned_rows import PlannedRow, compose_row
from pipelines.schemas import GENERATED
from pipelines.unit_claims import UnitClaims
from pipelines.unit_message import EngineUse, UnitMessage

__all__ = ["GenerateImages", "generate_rows"]

MAX_MESSAGE_LENGTH = 2_000

Compose = Callable[[Sequence[ComposeRow]], list[ComposedImage | RowFailure]]


class GenerateImages:
    """Actor of the generate stage; holds one engine for its life."""

    def __init__(
        self,
        take_unit: Callable[[int], UnitMessage],
        load_engine: Callable[[], Engine],
        attempts: AttemptLog,
        fence: Fence | None,
        claims: UnitClaims | None,
    ) -> None:
        self._take_unit = take_unit
        self._claims = claims
        self._attempts = attempts
        give_up_when_terminated(attempts)
        self._engine = load_engine()
        self._fence = fence
        self._metrics = ActorMetrics()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a unit for each ticket of ``batch``, with rows of ``schemas.GENERATED``.

        Raises:
            LeaseLostError: The run was taken over.
            Exception: The device is lost, once too often.
        """
        if self._fence is not None:
            self._fence.check()
        made = [self._generate(ticket) for ticket in batch["ticket"].to_pylist()]
        return pa.concat_tables(message.to_batch() for message in made)

    def _generate(self, ticket: int) -> UnitMessage:
        message = self._take_unit(ticket)
        if self._claims is not None:
            message = self._claims.claim(message)
            if message.facts.is_idle:
                return message
        try:
            made = generate_unit(message, self._engine, self._attempts)
        except Exception as error:  # torch has no one class for a lost device; raised again below
            if device_is_lost(error):
                end_without_device(self._attempts, error)
            raise
        self._metrics.observe(made)
        return made


def generate_unit(
    message: UnitMessage, engine: Engine, attempts: AttemptLog | None = None
) -> UnitMessage:
    """Return the unit with its images or failures, and what making them took.

    Args:
        message: The unit; its rows have one base model.
        engine: What makes it.
        attempts: Where its tries are marked; None for nowhere.
    """
    before = engine.use()
    values = message.rows.to_pylist()
    engine.hold(values[0]["base_model_digest"])
    start = time.perf_counter()
    tries = None if attempts is None else attempts.begin(message.unit_id)
    if attempts is None or tries is None or not tries.one_by_one:
        rows, num_alone = generate_rows(values, engine.compose)
    else:
        rows = [
            _generate_alone(row, engine.compose, attempts, tries, message.unit_id) for row in values
        ]
        num_alone = len(rows)
    seconds = time.perf_counter() - start
    return message.with_facts(
        pa.Table.from_pylist(rows, schema=GENERATED),
        generate_seconds=seconds,
        rows_tried_alone=num_alone,
        device=engine.device,
        versions_json=engine.versions_json,
        **_changes(before, engine.use()),
    )


def generate_rows(rows: Sequence[PlannedRow], compose: Compose) -> tuple[list[dict[str, Any]], int]:
    """Return rows of ``schemas.GENERATED`` in order, and how many were tried alone.

    Raises:
        Exception: The device is lost.
    """
    results: dict[int, ComposedImage | RowFailure] = {}
    composable: dict[int, ComposeRow] = {}
    for index, row in enumerate(rows):
        prepared = _prepare(row)
        if isinstance(prepared, RowFailure):
            results[index] = prepared
        else:
            composable[index] = prepared
    made, num_alone = _compose_each(list(composable.values()), compose)
    results |= dict(zip(composable, made, strict=True))
    return [_result_row(row, results[index]) for index, row in enumerate(rows)], num_alone


def _generate_alone(
    row: PlannedRow, compose: Compose, attempts: AttemptLog, tries: UnitTries, unit_id: str
) -> dict[str, Any]:
    """Return the row made under a mark of its own, or failed if it died under one before."""
    deaths = tries.deaths_alone.get(row["key"], 0)
    if deaths:
        message = (
            f"the process that made it died {tries.number - 1} times, {deaths} of them with "
            "nothing but this row to do; it may need more memory than there is, or crash the "
            "driver (see Ray's worker logs), so make it smaller or on another machine"
        )
        return _result_row(
            row, RowFailure(stage=Stage.PROCESS, error="ProcessDied", message=message)
        )
    mark = attempts.begin_row(unit_id, row["key"])
    (result,), _ = generate_rows([row], compose)
    attempts.end_row(mark)
    return result


def _prepare(row: PlannedRow) -> ComposeRow | RowFailure:
    """Return what the composer takes; a row whose LoRA file cannot be used never gets there."""
    problem = next((lora["problem"] for lora in row["loras"] if lora["problem"]), None)
    if problem is not None:
        return RowFailure(stage=Stage.LORA, error="LoraFileError", message=problem)
    try:
        return compose_row(row, local_path=lambda uri: str(local_copy(uri)))
    except (LocationError, StoreAwayError) as error:
        return RowFailure(stage=Stage.LORA, error=type(error).__name__, message=str(error))


def _compose_each(
    rows: Sequence[ComposeRow], compose: Compose
) -> tuple[list[ComposedImage | RowFailure], int]:
    if not rows:
        return [], 0
    try:
        return compose(rows), 0
    except Exception as error:
        if device_is_lost(error):
            raise
        if len(rows) == 1:
            return [_failure(error)], 1
    return [_compose_each([row], compose)[0][0] for row in rows], len(rows)


def _failure(error: Exception) -> RowFailure:
    return RowFailure(stage=Stage.GENERATE, error=type(error).__name__, message=str(error))


def _result_row(row: PlannedRow, result: ComposedImage | RowFailure) -> dict[str, Any]:
    if isinstance(result, RowFailure):
        message = result.message[:MAX_MESSAGE_LENGTH] or result.error
        return {
            **row,
            "failure": {"stage": result.stage, "error": result.error, "message": message},
        }
    told = result.diagnostics
    return {
        **row,
        "pixels": result.image.tobytes(),
        "mask_coverage": list(told.mask_coverage),
        "mask_overlap": told.mask_overlap,
        "mask_leakage": list(told.mask_leakage),
        "loss_first": told.losses[0] if told.losses else None,
        "loss_last": told.losses[-1] if told.losses else None,
        "num_updates": len(told.losses),
        "unet_evaluations": told.unet_evaluations,
        "seconds": told.seconds,
        "batch_size": told.batch_size,
        "batch_slot": told.batch_slot,
        "retried_in_fp32": told.retried_in_fp32,
    }


def _changes(before: EngineUse, after: EngineUse) -> dict[str, float]:
    """Return by name what was counted in between, and the two that are as of now."""
    now = {name: getattr(after, name) for name in ("lora_cache_bytes", "peak_memory_bytes")}
    counted = asdict(after).items()
    return {name: value - getattr(before, name) for name, value in counted} | now
