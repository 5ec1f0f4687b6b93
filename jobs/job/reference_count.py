"""How many references each LoRA gets where the job does not say: no more than there are rows.

The paper scores against 50 images a LoRA (arXiv 2403.19776, section 4.2). That is right for a
benchmark and absurd for six rows, which would wait for 300 pictures. So a small job gets fewer; to
compare scores of several jobs, name the number.
"""

from collections.abc import Iterable

from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from pipelines.planning.references import SEEDS_PER_BLOCK, reference_id

MAX_DEFAULT = 50


def count_references(rows: Iterable[Row], asked: int | None) -> tuple[int, int]:
    """Return the number of references of each LoRA, and the number of LoRAs that have some.

    Args:
        rows: Of the whole manifest.
        asked: What the job says; None for as many as let references be no more than rows, in whole
            blocks, at least one block and at most ``MAX_DEFAULT``.
    """
    stored = StoredRows.of(rows)
    # Of broken files too: repairing one must not change what all are compared with.
    identities = {
        reference_id(row.base_model_digest, lora)
        for row, _ in stored.kinds()
        for lora in row.concepts
    }
    if asked is not None:
        return asked, len(identities)
    num_blocks = len(stored) // max(len(identities), 1) // SEEDS_PER_BLOCK
    return min(max(num_blocks, 1) * SEEDS_PER_BLOCK, MAX_DEFAULT), len(identities)
