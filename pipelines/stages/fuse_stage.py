"""Fusing: one adapter at a time, claimed, made and committed, or failed with its reason.

A fusion that cannot be made is a value, as a bad row is, and rows that need it fail with its
reason. A machine's fault is raised. A process that dies leaves a mark, and a fusion that has ended
two processes is then tried under a mark of its own, see ``ledger.tries``.
"""

import time
from dataclasses import dataclass

from clora_core.recipe.errors import CompositionError, Stage
from clora_core.recipe.fusion import Fusion
from clora_core.results import RowFailure
from manifests.places.locations import LocationError, StoreAwayError
from pipelines.fusing.fused_files import fused_name
from pipelines.leases.claims import Claimant
from pipelines.leases.lease import Fence
from pipelines.ledger.tries import TryMarks
from pipelines.stages.fused_work import FusedFile, References
from pipelines.stages.leaving import device_is_lost
from pipelines.stages.model_host import ModelHost
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage
from pipelines.units.message import UnitFacts
from pipelines.units.receipts import Receipt, RowReceipt

MAX_MESSAGE_LENGTH = 2_000


@dataclass(frozen=True, kw_only=True)
class CommitFused:
    """Where adapters are committed, and under which run; can be sent to any machine.

    Attributes:
        storage: Holds ``fused/``.
        run_id: The run.
        fence: Asked before an adapter is committed; None without a lease.
        references: Where images of single LoRAs may be.
    """

    storage: Storage
    run_id: str
    fence: Fence | None
    references: References

    @property
    def attempts(self) -> TryMarks:
        """Where tries are marked: beside what is committed."""
        return TryMarks(storage=self.storage, run_id=self.run_id)

    def is_done(self, key: str) -> bool:
        """Whether the adapter is there."""
        return self.storage.exists(fused_name(key))


def fuse_one(fusion: Fusion, host: ModelHost, into: CommitFused, attempts: TryMarks) -> Receipt:
    """Make and commit one adapter, unless it is there or another run makes it.

    Raises:
        LeaseLostError: The run was taken over.
        StorageError: The store is away.
        Exception: The device is lost.
    """
    if into.fence is not None:
        into.fence.check()
    claimant = Claimant(storage=into.storage, run_id=into.run_id)
    standing = claimant.claim(fusion.key, lambda: into.is_done(fusion.key))
    if standing.is_done or standing.held_by:
        facts = UnitFacts(held_by=standing.held_by, is_done=standing.is_done)
        return _receipt(fusion, facts, made=standing.is_done)
    before = host.use()
    host.hold(fusion.base_model_digest)
    start = time.perf_counter()
    made = _made(fusion, host, into, attempts)
    use = host.use()
    facts = UnitFacts(
        generate_seconds=time.perf_counter() - start,
        model_loads=use.model_loads - before.model_loads,
        model_load_seconds=use.model_load_seconds - before.model_load_seconds,
        peak_memory_bytes=use.peak_memory_bytes,
        output_bytes=len(made.content) if isinstance(made, FusedFile) else 0,
        device=host.device,
        versions_json=host.versions_json,
    )
    if isinstance(made, RowFailure):
        attempts.end(fusion.key)
        return _receipt(fusion, facts, failure=made)
    if into.fence is not None:
        into.fence.check()
    committed = into.storage.put_if_absent(fused_name(fusion.key), made.content)
    attempts.end(fusion.key)
    return _receipt(
        fusion, facts, made=True, committed=committed, evaluations=made.unet_evaluations
    )


def _made(
    fusion: Fusion, host: ModelHost, into: CommitFused, attempts: TryMarks
) -> FusedFile | RowFailure:
    tries = attempts.begin(fusion.key)
    if tries.one_by_one and tries.deaths_alone.get(fusion.key):
        message = (
            f"the process that fused them died {tries.number - 1} times; it may need more memory "
            "than there is (see Ray's worker logs)"
        )
        return RowFailure(stage=Stage.PROCESS, error="ProcessDied", message=message)
    mark = attempts.begin_row(fusion.key, fusion.key) if tries.one_by_one else None
    made = _tried(fusion, host, into)
    # Not reached where the device is lost: the mark stays, as that of a process that died.
    if mark is not None:
        attempts.end_row(mark)
    return made


def _tried(fusion: Fusion, host: ModelHost, into: CommitFused) -> FusedFile | RowFailure:
    try:
        return host.fuse(fusion, into.references)
    except CompositionError as error:
        return _failure(error.stage, error)
    except (LocationError, StoreAwayError) as error:
        return _failure(Stage.LORA, error)
    except StorageError:
        raise
    except Exception as error:  # what else a fusion can fail of has no class in common
        if device_is_lost(error):
            raise
        return _failure(Stage.FUSE, error)


def _failure(stage: Stage, error: Exception) -> RowFailure:
    message = str(error)[:MAX_MESSAGE_LENGTH] or type(error).__name__
    return RowFailure(stage=stage, error=type(error).__name__, message=message)


def _receipt(
    fusion: Fusion,
    facts: UnitFacts,
    *,
    made: bool = False,
    committed: bool = False,
    failure: RowFailure | None = None,
    evaluations: int = 0,
) -> Receipt:
    row = RowReceipt(
        method=fusion.method,
        made=made,
        stage=None if failure is None else failure.stage,
        seconds=facts.generate_seconds,
        unet_evaluations=evaluations,
        dino_min=None,
    )
    return Receipt(
        unit_id=fusion.key, committed=committed, rows=(row,), facts=facts, failure=failure
    )


def done_elsewhere(fusion: Fusion) -> Receipt:
    """Return the receipt of an adapter that another run has committed."""
    return _receipt(fusion, UnitFacts(is_done=True), made=True)
