"""A run from manifest rows to an account: plan, references, rows, and what is left for people.

Top to bottom this is the product's main path. A run is started, killed and started again without
ceremony, because nothing here remembers anything: each run reads the ledger, plans what is missing
and makes it. Ray is started only if there is something to make, and the output's lease claimed only
if there is something to write. Image files that are missing or of another size are written again
from their rows first: a row that counts as made has its image.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from manifests.places.locations import LocationError
from manifests.places.place_names import joined
from pipelines.early_reads import EarlyReads
from pipelines.fusing.fused_files import FUSED_FOLDER
from pipelines.fusing.plan import FusionPlan
from pipelines.leases.lease import HeldLease, LeaseHeldError, LeaseLostError, acquire
from pipelines.leases.lease_record import latest_lease
from pipelines.ledger.account import Account
from pipelines.ledger.failure_budget import TooManyFailuresError
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.lost_images import damaged_images, restore_lost_images
from pipelines.ledger.run_record import RunState, new_run_id
from pipelines.ledger.update_index import is_indexed, update_index
from pipelines.metrics.run import RunMetrics
from pipelines.metrics.server import served
from pipelines.planning.plan import Plan
from pipelines.request import Observer, RunRequest
from pipelines.run_account import is_all_there, new_record, nothing_to_make
from pipelines.run_phases import Run
from pipelines.run_plan import (
    Planned,
    plan_references,
    plan_row_fusions,
    plan_rows,
    sealed_plan,
)
from pipelines.session.cluster_session import cluster_session
from pipelines.session.shares import Shares, share_cluster
from pipelines.storage.error import PlaceError, StorageError
from pipelines.units.committed_unit import ROWS_FOLDER


def compose_rows(request: RunRequest, observer: Observer, *, address: str | None) -> Account:
    """Make every row of the manifest that is not made yet; return where all of them are.

    Raises:
        ClusterError, SharesError: There is no cluster, or it cannot hold the job.
        LeaseHeldError: Another run is writing the output.
        LeaseLostError: This run was taken for dead, and another goes on with the output.
        LedgerError, DamagedFileError: Committed units are damaged; nothing was started.
        StorageError: The output cannot be read or written now.
        MetricsPortError: The port for metrics cannot be opened.
        TooManyFailuresError: So many rows failed that the run stopped; it carries the account.
        Exception: The machinery failed; what is committed stays and the next run goes on there.
    """
    storage = request.storage
    storage.settle(ROWS_FOLDER)
    seen = latest_lease(storage)
    ledger = read_ledger(storage)
    damaged = damaged_images(storage, ledger)
    planned = Planned(ledger=ledger, plan=plan_rows(request, ledger, note=observer.note))
    run_id = request.run_id or new_run_id(datetime.now(UTC))
    if not damaged and is_indexed(ledger) and is_all_there(request, planned, note=observer.note):
        return nothing_to_make(request, planned, run_id, note=observer.note)
    try:
        held = acquire(storage, run_id, times=request.lease_times, note=observer.note)
    except LeaseHeldError:
        if planned.plan.num_rows or damaged:
            raise
        # The other run leaves for people what this one would.
        return nothing_to_make(request, planned, run_id, note=observer.note)
    with held as lease:
        restore_lost_images(ledger, damaged, note=observer.note)
        planned = sealed_plan(request, lease, run_id, planned, seen, observer.note)
        planned = replace(planned, ledger=update_index(planned.ledger))
        if not planned.plan.num_rows:
            lease.finished()
            return nothing_to_make(request, planned, run_id, publishes=True, note=observer.note)
        references = plan_references(request, planned.plan)
        if references is not None and references.num_rows:
            observer.note(_announced(request, planned.plan, references))
        fusions = plan_row_fusions(request, planned.plan)
        if fusions.fusions:
            observer.note(_announced_fusions(request, fusions))
        record, metrics = new_record(request, run_id), RunMetrics(planned.plan.num_rows)
        with (
            served(metrics.registry, request.metrics_at),
            cluster_session(address, note=observer.note) as cluster,
            EarlyReads(storage) as early_reads,
        ):
            run = Run(
                request=request,
                observer=observer,
                planned=planned,
                references=references,
                fusions=fusions,
                lease=lease,
                record=record,
                metrics=metrics,
                early_reads=early_reads,
            )
            shares = share_cluster(request.resources, cluster)
            try:
                return _made(run, shares)
            except (PlaceError, LocationError) as error:
                # It could be used when the run began, so it may be possible again.
                raise StorageError(str(error)) from error


def _announced(request: RunRequest, plan: Plan, references: Plan) -> str:
    """Return a sentence on pictures that nobody has asked for by name, before they take time."""
    return (
        f"{references.num_rows:,} reference image(s) are made first, which the {plan.num_rows:,} "
        f"row(s) are scored against, and kept in {request.references_storage.uri}; "
        "scoring.references says how many of each LoRA, 0 for none and no scores"
    )


def _announced_fusions(request: RunRequest, fusions: FusionPlan) -> str:
    """Return a sentence on adapters that nobody has asked for by name, before they take time."""
    methods = ", ".join(f"{method} {count:,}" for method, count in fusions.by_method.items())
    folder = joined(request.fused_storage.uri, FUSED_FOLDER)
    return (
        f"{len(fusions.fusions):,} adapter(s) are fused first ({methods}), which "
        f"{fusions.num_rows:,} row(s) are sampled with, and kept in {folder}"
    )


def _made(run: Run, shares: Shares) -> Account:
    """Return the account of a run after it made what it could."""
    try:
        run.make(shares)
    except BaseException as error:
        lost = _lost(run.lease)
        if lost is not None:
            # The output is another's now: nothing but this run's own record is touched.
            run.end(RunState.SUPERSEDED, lost)
            raise lost from error
        # A store that broke the run may refuse its record as well; what broke it is the reason.
        with suppress(StorageError):
            account = run.finish(_state_after(error), error)
            if isinstance(error, TooManyFailuresError):
                error.account = account
        raise
    lost = _lost(run.lease)
    if lost is not None:
        # Its workers had made the last units before another run came; what is told is that run's.
        run.end(RunState.SUPERSEDED, lost)
        raise lost
    run.lease.finished()
    return run.finish(RunState.FINISHED, None)


def _lost(lease: HeldLease) -> LeaseLostError | None:
    try:
        lease.fence.check()
    except LeaseLostError as lost:
        return lost
    except StorageError:
        return None
    return None


def _state_after(error: BaseException) -> RunState:
    if isinstance(error, KeyboardInterrupt):
        return RunState.INTERRUPTED
    return RunState.STOPPED if isinstance(error, TooManyFailuresError) else RunState.FAILED
