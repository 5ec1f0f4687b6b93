"""What a run is asked for, and who watches it: the engine's interface to jobs, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clora_core.recipe.row import Row
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.ledger.failure_budget import FailureBudget
from pipelines.metrics.server import MetricsAddress
from pipelines.planning.references import ReferenceSettings
from pipelines.session.resources import Resources
from pipelines.stages.model_host import LoadModelHost
from pipelines.stages.score import LoadScorer
from pipelines.storage.storage import Storage
from pipelines.units.receipts import Phase, Receipt


class Observer(Protocol):
    """Who watches a run; called in the driver, in order."""

    def begin(self, phase: Phase, num_rows: int) -> None:
        """A phase begins."""
        ...

    def stored(self, receipt: Receipt) -> None:
        """A unit of the phase is committed."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Everything a run needs.

    Attributes:
        rows: The whole manifest, in its order.
        storage: The output.
        references_storage: Where references are kept.
        references_folder: The same, relative to the output; None if it is elsewhere.
        fused_storage: Where fused adapters are kept.
        references: How references are made, by the digest of their base model; empty for none.
        load_model_host: Where actors get their model host.
        load_scorer: Where score actors get their scorer; None leaves images unscored.
        scores_windows: Whether windows of images are scored, too: ``dino_apart``.
        base_model_digest: Identity of the base model of rows that name none.
        base_models: Identity of each further one, by the name that rows give it.
        dino_digest: Identity of the scorer's model.
        resources: What the run may use.
        failure_budget: How many rows may fail before the run stops.
        lease_times: How the run shows that it lives.
        only_failed: Make the rows that failed, however often, and nothing else.
        job: The job, for the record.
        run_id: Of the run; None makes one.
        metrics_at: Where the run's metrics are served while it lasts; None for nowhere.
    """

    rows: Sequence[Row]
    storage: Storage
    references_storage: Storage
    references_folder: str | None
    fused_storage: Storage
    references: Mapping[str, ReferenceSettings]
    load_model_host: LoadModelHost
    load_scorer: LoadScorer | None
    base_model_digest: str
    dino_digest: str | None
    resources: Resources = field(default_factory=Resources)
    failure_budget: FailureBudget = field(default_factory=FailureBudget)
    lease_times: LeaseTimes = field(default_factory=LeaseTimes)
    only_failed: bool = False
    scores_windows: bool = True
    base_models: Mapping[str, str] = field(default_factory=dict[str, str])
    job: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run_id: str | None = None
    metrics_at: MetricsAddress | None = None

    @property
    def attempts(self) -> int | None:
        """How often a row that fails is tried before it is left alone; None for always again."""
        return None if self.only_failed else self.resources.attempts
