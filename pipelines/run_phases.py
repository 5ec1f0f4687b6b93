"""The phases of one run, references, fusions and images, and what the run leaves for others."""

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pipelines.early_reads import EarlyReads
from pipelines.fuse_phase import fuse_missing
from pipelines.fusing.fused_source import FusedSource
from pipelines.fusing.plan import FusionPlan
from pipelines.leases.lease import HeldLease
from pipelines.leases.makers import present
from pipelines.leases.unit_claims import make_shared_units
from pipelines.ledger.account import Account
from pipelines.ledger.asked_rows import write_asked
from pipelines.ledger.error_tables import restore_errors
from pipelines.ledger.failure_budget import TooManyFailuresError
from pipelines.ledger.run_record import PhaseTotals, RunRecord, RunState, write_run_record
from pipelines.ledger.tries import TryMarks
from pipelines.ledger.update_index import update_index
from pipelines.metrics.run import RunMetrics
from pipelines.outputs.publish import FreshStamps, announce
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import PlanReader, write_plan
from pipelines.planning.references import CentroidSource
from pipelines.reference_phase import find_centroids
from pipelines.request import Observer, RunRequest
from pipelines.run_account import loras_of, manifest_account, publish_run
from pipelines.run_plan import Planned
from pipelines.session.shares import Shares
from pipelines.stages.commit import CommitUnits
from pipelines.stages.fuse_stage import CommitFused
from pipelines.stages.fused_work import References
from pipelines.stages.phases import UnitPhase
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages
from pipelines.units.receipts import Phase, Receipt

if TYPE_CHECKING:
    from pipelines.stages.graph import Engine


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run at work; its record and metrics are filled as receipts come in.

    Attributes:
        request: What is asked for.
        observer: Who watches.
        planned: What is to be made.
        references: What is to be made before; None if images are not scored.
        fusions: What is to be fused before.
        lease: On the output.
        record: Of the run, in the output.
        metrics: Of the run, for Prometheus.
        early_reads: Of the output, at work.
    """

    request: RunRequest
    observer: Observer
    planned: Planned
    references: Plan | None
    fusions: FusionPlan
    lease: HeldLease
    record: RunRecord
    metrics: RunMetrics
    early_reads: EarlyReads

    def make(self, shares: Shares) -> None:
        """Make references, then fused adapters, then rows."""
        request, record, plan = self.request, self.record, self.planned.plan
        restore_errors(request.storage, self.planned.ledger)
        record.manifest = write_asked(request.storage, request.rows)
        write_run_record(request.storage, record)
        write_plan(request.storage, record.run_id, Phase.IMAGES, plan)
        # Before a row is committed: what was loaded before must not be taken for what is there.
        announce(
            request.storage,
            record=asdict(record),
            ledger=self.planned.ledger,
            loras=loras_of(request.rows),
        )
        # In this order: see ``seal``.
        self.lease.fence.check()
        if self.planned.is_sealed:
            self.lease.sealed()
        # Imported late: Ray reads its environment when it is imported, and the session sets it.
        from pipelines.stages.graph import Engine

        with Engine(
            load_model_host=request.load_model_host, load_scorer=request.load_scorer, shares=shares
        ) as engine:
            centroids = self._make_references(engine)
            fused = self._fuse(engine)
            self._make_units(Phase.IMAGES, plan, request.storage, centroids, engine, fused)
        self.lease.fence.check()
        TryMarks(storage=request.storage, run_id=record.run_id).clear()

    def _make_references(self, engine: "Engine") -> CentroidSource:
        """Make the references that pending rows need and nobody has made; return centroids."""
        request, plan = self.request, self.references
        none = CentroidSource()
        if plan is None:
            return none
        storage, run_id = request.references_storage, self.record.run_id
        if plan.num_rows:
            write_plan(request.storage, run_id, Phase.REFERENCES, plan)
            with present(storage, run_id, request.lease_times):
                self._make_units(Phase.REFERENCES, plan, storage, none, engine)
        return find_centroids(request, self.planned.plan, run_id, note=self.observer.note)

    def _fuse(self, engine: "Engine") -> FusedSource | None:
        """Fuse the adapters that pending rows need and nobody has made; return where all are."""
        request, plan = self.request, self.fusions
        if not plan.num_rows:
            return None
        totals = PhaseTotals(num_planned=len(plan.fusions), num_units=len(plan.fusions))
        if plan.fusions:
            self.record.phases[Phase.FUSIONS] = totals
            self.observer.begin(Phase.FUSIONS, totals.num_planned)
        start = time.perf_counter()

        def stored(receipt: Receipt) -> None:
            totals.add(receipt)
            totals.wall_seconds = time.perf_counter() - start
            self.metrics.observe_fusion(receipt)
            self.observer.stored(receipt)

        failures = fuse_missing(
            plan,
            CommitFused(
                storage=request.fused_storage,
                run_id=self.record.run_id,
                fence=self.lease.fence,
                references=References(
                    storage=request.references_storage if self.references is not None else None
                ),
            ),
            engine.make_fusions,
            times=request.lease_times,
            stored=stored,
            note=self.observer.note,
        )
        return FusedSource(
            storage=request.fused_storage, dtype=request.resources.dtype, failures=failures
        )

    def _make_units(
        self,
        phase: Phase,
        plan: Plan,
        storage: Storage,
        centroids: CentroidSource,
        engine: "Engine",
        fused: FusedSource | None = None,
    ) -> None:
        request, record, observer = self.request, self.record, self.observer
        is_shared = phase is Phase.REFERENCES
        totals = PhaseTotals(num_planned=plan.num_rows, num_units=plan.num_units)
        record.phases[phase] = totals
        observer.begin(phase, totals.num_planned)
        work = UnitPhase(
            plan=PlanReader(storage=request.storage, run_id=record.run_id, phase=phase),
            load_centroids=centroids,
            scores_windows=request.scores_windows,
            fused=fused,
            store=CommitUnits(
                storage=storage,
                run_id=record.run_id,
                dino_digest=request.dino_digest,
                fence=self.lease.fence,
                is_shared=is_shared,
            ),
        )
        make = partial(engine.make_units, work=work, is_last=not is_shared)
        max_failed, num_failed = self._max_failed(plan), 0
        stamps = FreshStamps(storage, record.run_id)
        start = time.perf_counter()
        made = (
            make_shared_units(plan, make, storage, times=request.lease_times, note=observer.note)
            if is_shared
            else make(plan)
        )
        # Closed at once if the run stops: Ray's actors hold processors until then.
        with closing(made) as receipts:
            for receipt in receipts:
                totals.add(receipt)
                totals.wall_seconds = time.perf_counter() - start
                if is_shared:
                    self.metrics.observe_reference(receipt)
                else:
                    stamps.committed()
                    if receipt.committed:
                        self.early_reads.committed(receipt.unit_id)
                    self.metrics.observe(receipt)
                observer.stored(receipt)
                num_failed += 0 if receipt.facts.is_done else receipt.num_failed
                if max_failed is not None and num_failed > max_failed:
                    raise TooManyFailuresError(
                        f"stopped: {num_failed:,} of {totals.num_planned:,} {phase} failed, "
                        f"more than the {max_failed:,} that failure_budget allows"
                    )

    def _max_failed(self, plan: Plan) -> int | None:
        """Return how many rows of ``plan`` may fail; None where rows are known to be bad."""
        if self.request.only_failed:
            return None
        return self.request.failure_budget.limit(plan.num_rows, num_known=plan.num_unusable)

    def finish(self, state: RunState, error: BaseException | None) -> Account:
        """Take the account, and write what the run leaves beside its data."""
        request, record = self.request, self.record
        damages = Damages(note=self.observer.note)
        # Rows of a unit that was damaged meanwhile are nowhere, and the account says so.
        ledger, listed = self.early_reads.survey()
        for damage in ledger.damaged:
            damages.skip(damage)
        account = manifest_account(request, self.planned, ledger)
        record.account = account
        self.end(state, error)
        request.storage.put("metrics.prom", self.metrics.text())
        publish_run(request, record, account, ledger, damages, listed)
        # Last: it saves the next run time, and is nothing that this one is asked for.
        update_index(ledger)
        return account

    def end(self, state: RunState, error: BaseException | None) -> None:
        """Write the run's own record for the last time."""
        record = self.record
        record.state = state
        record.error = None if error is None else f"{type(error).__name__}: {error}"[:2000]
        record.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_run_record(self.request.storage, record)
