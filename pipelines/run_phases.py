"""The phases of one run, references and then images, and what the run leaves behind."""

import time
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from manifests.resolved import ResolvedRow
from pipelines.accounting import Account
from pipelines.asked_rows import write_asked
from pipelines.attempts import AttemptLog
from pipelines.damages import Damages
from pipelines.failure_budget import TooManyFailuresError
from pipelines.lease import Fence, HeldLease
from pipelines.ledger import Ledger, restore_errors, survey
from pipelines.makers import present
from pipelines.metrics import RunMetrics
from pipelines.output_files import encode_parquet
from pipelines.plan import Plan
from pipelines.publish import publish
from pipelines.receipts import Receipt
from pipelines.references import CentroidSource, read_centroids, reference_id, write_centroids
from pipelines.request import Observer, RunRequest
from pipelines.run_account import manifest_account, new_record
from pipelines.run_plan import wanted_references
from pipelines.run_record import (
    PhaseTotals,
    RunState,
    write_run_record,
)
from pipelines.schemas import PLAN
from pipelines.seal import plan_name
from pipelines.shared_images import restore_shared_images
from pipelines.shares import Shares
from pipelines.storage import Storage
from pipelines.store import StoreUnits
from pipelines.unit_claims import make_shared_units

__all__ = ["Run"]


class Run:
    """One run's moving parts: its record and metrics, filled as receipts come in.

    Args:
        request: What is asked for.
        observer: Who is told of it.
        before: The ledger that the plan was made from.
        plan: What is to be made.
        references: What is to be made before; None if images are not scored.
        run_id: Names the run.
    """

    def __init__(
        self,
        request: RunRequest,
        observer: Observer,
        before: Ledger,
        plan: Plan,
        references: Plan | None,
        run_id: str,
    ) -> None:
        self._request = request
        self._observer = observer
        self._before = before
        self._plan = plan
        self._references = references
        self._metrics = RunMetrics(plan.num_rows)
        self.registry = self._metrics.registry
        self._record = new_record(request, run_id)

    def make(self, shares: Shares, lease: HeldLease, *, is_sealed: bool) -> None:
        """Make references, then rows; ``is_sealed`` as ``run_plan.sealed_plan`` returns it."""
        request = self._request
        restore_errors(request.storage, self._before)
        self._record.manifest = write_asked(request.storage, request.rows)
        write_run_record(request.storage, self._record)
        _write_plan(request.storage, plan_name(self._record.run_id, "images"), self._plan)
        # In this order: see ``seal``.
        lease.fence.check()
        if is_sealed:
            lease.sealed()
        centroids = self._make_references(shares, lease.fence)
        self._make_units("images", self._plan, request.storage, centroids, shares, lease.fence)
        lease.fence.check()
        AttemptLog(storage=request.storage, run_id=self._record.run_id).clear()

    def _make_references(self, shares: Shares, fence: Fence) -> CentroidSource:
        """Make the references that pending rows need and nobody has made; return centroids."""
        request = self._request
        none = CentroidSource()
        plan = self._references
        if plan is None:
            return none
        storage, run_id = request.references_storage, self._record.run_id
        if plan.num_rows:
            _write_plan(request.storage, plan_name(run_id, "references"), plan)
            with present(storage, run_id, request.lease_times):
                self._make_units("references", plan, storage, none, shares, fence)
        # Last, because a run that died may have committed a unit and not come to its images.
        ledger = restore_shared_images(storage, times=request.lease_times, note=self._observer.note)
        wanted = wanted_references(request, self._plan)
        found = read_centroids(storage, wanted)
        self._note_missing(wanted, ledger.made, found, storage)
        name = f"plans/{self._record.run_id}-centroids.parquet"
        return write_centroids(request.storage, name, found)

    def _note_missing(
        self,
        wanted: Sequence[ResolvedRow],
        made: Collection[str],
        found: Collection[str],
        storage: Storage,
    ) -> None:
        """Say which LoRAs have no references, or fewer than were asked for."""
        missing = {
            reference_id(row.base_model_digest, asdict(row.loras[0]))
            for row in wanted
            if row.key not in made
        }
        num_none = len(missing.difference(found))
        if num_none:
            self._observer.note(
                f"{num_none} LoRA(s) have no references, so rows with them get no dino_min, "
                f"dino_avg and dino_max; see {storage.uri}/errors"
            )
        if num_none < len(missing):
            self._observer.note(
                f"{len(missing) - num_none} LoRA(s) have fewer references than were asked for, and "
                f"are scored against these; see {storage.uri}/errors"
            )

    def _make_units(
        self,
        phase: str,
        plan: Plan,
        storage: Storage,
        centroids: CentroidSource,
        shares: Shares,
        fence: Fence,
    ) -> None:
        # Imported late: Ray reads its environment when it is imported, and the session sets it.
        from pipelines.graph import Stages, make_units

        request, record = self._request, self._record
        totals = PhaseTotals(num_planned=plan.num_rows, num_units=plan.num_units)
        record.phases[phase] = totals
        self._observer.begin(phase, totals.num_planned)
        stages = Stages(
            load_engine=request.load_engine,
            load_scorer=request.load_scorer,
            load_centroids=centroids,
            store=StoreUnits(
                storage=storage,
                run_id=record.run_id,
                dino_digest=request.dino_digest,
                fence=fence,
                is_shared=phase == "references",
            ),
        )

        def make(plan: Plan) -> Generator[Receipt]:
            return make_units(plan, stages, shares)

        def make_all() -> Generator[Receipt]:
            if not stages.store.is_shared:
                return make(plan)
            return make_shared_units(
                plan, make, storage, times=request.lease_times, note=self._observer.note
            )

        max_failed, num_failed = self._max_failed(plan), 0
        start = time.perf_counter()
        # Closed at once if the run stops: Ray's actors hold processors until then.
        with closing(make_all()) as receipts:
            for receipt in receipts:
                totals.add(receipt)
                totals.wall_seconds = time.perf_counter() - start
                if phase == "images":
                    self._metrics.observe(receipt)
                self._observer.stored(receipt)
                num_failed += 0 if receipt.facts.is_done else receipt.num_failed
                if max_failed is not None and num_failed > max_failed:
                    raise TooManyFailuresError(
                        f"stopped: {num_failed:,} of {totals.num_planned:,} {phase} failed, "
                        f"more than the {max_failed:,} that failure_budget allows"
                    )

    def _max_failed(self, plan: Plan) -> int | None:
        """Return how many rows of ``plan`` may fail; None where rows are known to be bad."""
        if self._request.only_failed:
            return None
        return self._request.failure_budget.limit(plan.num_rows, num_known=plan.num_unusable)

    def finish(self, state: RunState, error: BaseException | None) -> Account:
        """Take the account, and write what the run leaves beside its data."""
        request, record = self._request, self._record
        damages = Damages(note=self._observer.note)
        # Rows of a unit that was damaged meanwhile are nowhere, and the account says so.
        ledger = survey(request.storage)
        for damage in ledger.damaged:
            damages.skip(damage)
        account = manifest_account(request, self._plan, self._before, ledger)
        record.account = account
        self.end(state, error)
        request.storage.put("metrics.prom", self._metrics.text())
        publish(
            request.storage,
            record=asdict(record),
            account=account,
            ledger=ledger,
            loras=_loras(request.rows),
            references_folder=request.references_folder,
            damages=damages,
        )
        return account

    def end(self, state: RunState, error: BaseException | None) -> None:
        """Write the run's own record for the last time."""
        record = self._record
        record.state = state
        record.error = None if error is None else f"{type(error).__name__}: {error}"[:2000]
        record.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_run_record(self._request.storage, record)


def _write_plan(storage: Storage, name: str, plan: Plan) -> None:
    storage.put(name, encode_parquet(name, plan.batches(), PLAN))


def _loras(rows: Sequence[ResolvedRow]) -> list[dict[str, Any]]:
    found = {lora.digest: asdict(lora) for row in rows for lora in row.loras}
    return sorted(found.values(), key=lambda lora: lora["name"])
