"""Which adapters have to be fused before the planned rows can be sampled."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from clora_core.recipe.fusion import Fusion, fusion_of
from clora_core.recipe.row import Row
from pipelines.fusing.fused_files import fused_keys
from pipelines.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class FusionPlan:
    """Adapters that pending rows need.

    Attributes:
        fusions: Those that nobody has made, by base model, method and LoRAs.
        num_already_made: Those that are there.
        num_rows: Pending rows that are sampled with one of either.
    """

    fusions: tuple[Fusion, ...]
    num_already_made: int
    num_rows: int

    @property
    def by_method(self) -> Counter[str]:
        """How many are to be made, by method."""
        return Counter(fusion.method for fusion in self.fusions)


def plan_fusions(pending: Iterable[tuple[Row, int]], storage: Storage, *, dtype: str) -> FusionPlan:
    """Return what the ``pending`` rows need.

    A row that names a file which cannot be used is no reason to fuse: it fails anyway.

    Args:
        pending: A row of each kind that is to be made, and how many there are.
        storage: Where fused adapters are kept.
        dtype: Numbers that base models compute with.
    """
    wanted: dict[str, Fusion] = {}
    num_rows = 0
    for row, count in pending:
        fusion = fusion_of(row, dtype=dtype)
        if fusion is not None and row.problem is None:
            num_rows += count
            wanted.setdefault(fusion.key, fusion)
    made = fused_keys(storage) if wanted else set[str]()
    missing = [fusion for key, fusion in wanted.items() if key not in made]
    return FusionPlan(
        fusions=tuple(sorted(missing, key=_order)),
        num_already_made=len(wanted) - len(missing),
        num_rows=num_rows,
    )


def _order(fusion: Fusion) -> tuple[str, str, str, str]:
    digests = " ".join(lora.digest for lora in fusion.loras)
    return fusion.base_model_digest, fusion.method, digests, fusion.key
