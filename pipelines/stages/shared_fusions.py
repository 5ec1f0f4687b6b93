"""Fusions of a store that several runs share: each made by one of them, while the others wait."""

from collections.abc import Callable, Generator, Sequence

from clora_core.recipe.fusion import Fusion
from pipelines.fusing.fused_files import fused_keys
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.shared_work import share_work
from pipelines.stages.fuse_stage import done_elsewhere
from pipelines.storage.storage import Storage
from pipelines.units.receipts import Receipt


def make_shared_fusions(
    fusions: Sequence[Fusion],
    make: Callable[[Sequence[Fusion]], Generator[Receipt]],
    storage: Storage,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
) -> Generator[Receipt]:
    """Yield a receipt of every fusion once its adapter is committed, here or by another run.

    Args:
        fusions: What is wanted.
        make: Makes those that no other run holds, and yields receipts of all.
        storage: Where adapters are committed.
        times: How long a silence of another run is death.
        note: Gets a sentence of what is waited for.
    """
    by_key = {fusion.key: fusion for fusion in fusions}
    return share_work(
        by_key,
        lambda keys: make([fusion for key, fusion in by_key.items() if key in keys]),
        storage,
        find_done=lambda: fused_keys(storage),
        receipts_of=lambda keys: [done_elsewhere(by_key[key]) for key in sorted(keys)],
        what="fused adapter(s)",
        times=times,
        note=note,
    )
