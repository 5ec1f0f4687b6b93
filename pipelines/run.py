"""A run from manifest rows to an account: plan, references, rows, and what is left for people.

Top to bottom this is the product's main path. A run is started, killed and started again without
ceremony, because nothing here remembers anything: each run reads the ledger, plans what is missing
and makes it. Ray is started only if there is something to make.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.resolved import ResolvedRow
from pipelines.accounting import Account, take_account
from pipelines.cluster_session import Cluster, cluster_session
from pipelines.engine import LoadEngine
from pipelines.ledger import Ledger, read_ledger, restore_errors
from pipelines.metrics import RunMetrics
from pipelines.metrics_server import served
from pipelines.plan import Plan, plan_units
from pipelines.planned_rows import row_table
from pipelines.publish import publish
from pipelines.references import (
    CentroidSource,
    read_centroids,
    reference_rows,
    write_centroids,
)
from pipelines.request import Observer, Resources, RunRequest
from pipelines.run_record import (
    PhaseTotals,
    RunRecord,
    RunState,
    new_run_id,
    write_run_record,
)
from pipelines.score import reference_id
from pipelines.shares import Shares, share_cluster
from pipelines.storage import Storage
from pipelines.store import StoreUnits

__all__ = ["compose_rows", "plan_references", "plan_rows"]


def compose_rows(request: RunRequest, observer: Observer, *, address: str | None) -> Account:
    """Make every row of the manifest that is not made yet; return where all of them are.

    Raises:
        ClusterError, SharesError: There is no cluster, or it cannot hold the job.
        LedgerError, StorageError: The output is not what it should be.
        MetricsPortError: The port for metrics cannot be opened.
        Exception: The machinery failed; what is committed stays and the next run goes on there.
    """
    before = read_ledger(request.storage)
    plan = plan_rows(request, before)
    run = _Run(request, observer, before, plan)
    if not plan.num_rows:
        restore_errors(request.storage, before)
        return run.account(before)
    with served(run.registry, request.metrics_at), cluster_session(address) as cluster:
        shares = _shares(request.resources, cluster)
        restore_errors(request.storage, before)
        try:
            run.make(shares)
        except BaseException as error:
            run.finish("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", error)
            raise
        return run.finish("finished", None)


def plan_rows(request: RunRequest, ledger: Ledger) -> Plan:
    """Return the plan of the manifest's rows, given what is made and what failed."""
    if not request.only_failed:
        return _plan(request.rows, ledger, request.resources)
    failed = [row for row in request.rows if row.key in ledger.failed]
    return _plan(failed, ledger, replace(request.resources, max_attempts=None))


def plan_references(request: RunRequest, rows: Plan) -> Plan | None:
    """Return the plan of the references that the planned ``rows`` need; None if none are used."""
    if request.references is None or request.load_scorer is None:
        return None
    wanted = _wanted_references(request, rows)
    return _plan(wanted, read_ledger(request.references_storage), request.resources)


class _Run:
    """One run's moving parts: its record and metrics, filled as receipts come in."""

    def __init__(self, request: RunRequest, observer: Observer, before: Ledger, plan: Plan) -> None:
        self._request = request
        self._observer = observer
        self._before = before
        self._plan = plan
        self._metrics = RunMetrics(plan.num_rows)
        self.registry = self._metrics.registry
        now = datetime.now(UTC)
        self._record = RunRecord(
            run_id=request.run_id or new_run_id(now),
            started_at=now.isoformat(timespec="seconds"),
            num_rows=len(request.rows),
            job=request.job,
            digests={"base_model": request.base_model_digest, "dino": request.dino_digest},
        )

    def make(self, shares: Shares) -> None:
        """Make references, then rows."""
        request = self._request
        write_run_record(request.storage, self._record)
        load_engine = request.make_engine(shares)
        centroids = self._make_references(load_engine, shares)
        self._make_units(
            "images", self._plan.units, request.storage, load_engine, centroids, shares
        )

    def _make_references(self, load_engine: LoadEngine, shares: Shares) -> CentroidSource:
        """Make the references that pending rows need and nobody has made; return centroids."""
        request = self._request
        none = CentroidSource()
        plan = plan_references(request, self._plan)
        if plan is None:
            return none
        storage = request.references_storage
        if plan.num_rows:
            self._make_units("references", plan.units, storage, load_engine, none, shares)
        wanted = _wanted_references(request, self._plan)
        found = read_centroids(storage, wanted)
        num_missing = len({reference_id(asdict(row.loras[0])) for row in wanted}) - len(found)
        if num_missing > 0:
            self._observer.note(
                f"{num_missing} LoRA(s) have no references, so rows with them get no dino_min, "
                f"dino_avg and dino_max; see {storage.uri}/errors"
            )
        name = f"plans/{self._record.run_id}-centroids.parquet"
        return write_centroids(request.storage, name, found)

    def _make_units(
        self,
        phase: str,
        units: pa.Table,
        storage: Storage,
        load_engine: LoadEngine,
        centroids: CentroidSource,
        shares: Shares,
    ) -> None:
        # Imported late: Ray reads its environment when it is imported, and the session sets it.
        from pipelines.graph import Stages, make_units

        request, record = self._request, self._record
        _write_plan(request.storage, f"plans/{record.run_id}-{phase}.parquet", units)
        totals = PhaseTotals(
            num_planned=sum(units["num_rows"].to_pylist()), num_units=units.num_rows
        )
        record.phases[phase] = totals
        self._observer.begin(phase, totals.num_planned)
        stages = Stages(
            load_engine=load_engine,
            load_scorer=request.load_scorer,
            load_centroids=centroids,
            store=StoreUnits(
                storage=storage,
                run_id=record.run_id,
                base_model_digest=request.base_model_digest,
                dino_digest=request.dino_digest,
            ),
        )
        start = time.perf_counter()
        for receipt in make_units(units, stages, shares):
            totals.add(receipt)
            totals.wall_seconds = time.perf_counter() - start
            if phase == "images":
                self._metrics.observe(receipt)
            self._observer.stored(receipt)

    def finish(self, state: RunState, error: BaseException | None) -> Account:
        """Take the account, and write what the run leaves beside its data."""
        request, record = self._request, self._record
        ledger = read_ledger(request.storage)
        account = self.account(ledger)
        record.account = account
        record.state = state
        record.error = None if error is None else f"{type(error).__name__}: {error}"[:2000]
        record.finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_run_record(request.storage, record)
        request.storage.put("metrics.prom", self._metrics.text())
        publish(
            request.storage,
            record=asdict(record),
            account=account,
            ledger=ledger,
            loras=_loras(request.rows),
            references_folder=request.references_folder,
        )
        return account

    def account(self, ledger: Ledger) -> Account:
        """Return where the manifest's rows are."""
        return take_account(
            (row.key for row in self._request.rows),
            before=self._before,
            after=ledger,
            given_up=self._plan.quarantined,
        )


def _wanted_references(request: RunRequest, plan: Plan) -> list[ResolvedRow]:
    if request.references is None:
        return []
    pending = {row["key"] for rows in plan.units["rows"].to_pylist() for row in rows}
    rows = (row for row in request.rows if row.key in pending)
    return list(reference_rows(rows, request.references))


def _plan(rows: Sequence[ResolvedRow], ledger: Ledger, resources: Resources) -> Plan:
    return plan_units(
        row_table(rows),
        made=ledger.made,
        failed=ledger.failed,
        rows_per_unit=resources.rows_per_unit,
        max_attempts=resources.max_attempts,
    )


def _shares(resources: Resources, cluster: Cluster) -> Shares:
    return share_cluster(
        cpus=cluster.cpus,
        gpus=cluster.gpus,
        actors=resources.actors,
        gpus_per_actor=resources.gpus_per_actor,
        cpus_per_actor=resources.cpus_per_actor,
        score_actors=resources.score_actors,
        may_grow=not cluster.is_private,
    )


def _write_plan(storage: Storage, name: str, units: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(units, sink, compression="zstd")
    storage.put(name, sink.getvalue())


def _loras(rows: Sequence[ResolvedRow]) -> list[dict[str, Any]]:
    found = {lora.digest: asdict(lora) for row in rows for lora in row.loras}
    return sorted(found.values(), key=lambda lora: lora["name"])
