"""The fuse phase of one run: adapters that nobody has made, claimed and made beside other runs."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

from clora_core.recipe.fusion import Fusion
from clora_core.results import RowFailure
from pipelines.fusing.plan import FusionPlan
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import forget_makers_over, present
from pipelines.stages.fuse_stage import CommitFused
from pipelines.stages.phases import FusionPhase
from pipelines.stages.shared_fusions import make_shared_fusions
from pipelines.units.receipts import Receipt


def fuse_missing(
    plan: FusionPlan,
    into: CommitFused,
    make: Callable[[FusionPhase], Generator[Receipt]],
    *,
    times: LeaseTimes,
    stored: Callable[[Receipt], None],
    note: Callable[[str], None],
) -> dict[str, RowFailure]:
    """Make the adapters of ``plan``; return why some could not be made, by key.

    Args:
        plan: What is missing.
        into: Where adapters are committed.
        make: Makes those that no other run holds, and yields receipts of all.
        times: How this run shows that it lives, and how long a silence of another is death.
        stored: Gets a receipt of each adapter.
        note: Gets sentences for the user.
    """
    if not plan.fusions:
        return {}

    def make_present(fusions: Sequence[Fusion]) -> Generator[Receipt]:
        # Only while it makes something: a run that waits holds nothing, so what failed here is free
        # and two runs never wait for each other.
        with present(into.storage, into.run_id, times):
            yield from make(FusionPhase(fusions=tuple(fusions), into=into))

    failures: dict[str, RowFailure] = {}
    # An adapter is whole once it is there, so nothing of a killed run is left to be done.
    forget_makers_over(into.storage)
    made = make_shared_fusions(plan.fusions, make_present, into.storage, times=times, note=note)
    # Closed at once if the run stops: Ray's actors hold processors until then.
    with closing(made) as receipts:
        for receipt in receipts:
            stored(receipt)
            if receipt.failure is not None:
                failures[receipt.unit_id] = receipt.failure
    if failures:
        note(_failed_fusions(plan, failures))
    return failures


def _failed_fusions(plan: FusionPlan, failures: Mapping[str, RowFailure]) -> str:
    """Return a sentence on adapters that could not be made, with the first reason."""
    first = next(fusion for fusion in plan.fusions if fusion.key in failures)
    return (
        f"{len(failures):,} of {len(plan.fusions):,} adapter(s) could not be fused, and their rows "
        f"fail: {first.adapter_name}: {failures[first.key].message}"
    )
