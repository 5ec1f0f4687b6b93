"""What the reference phase of a run gives the next ones: what images are compared with."""

from collections.abc import Callable, Collection, Sequence

from clora_core.recipe.row import Row
from manifests.places.place_names import joined
from pipelines.leases.shared_images import restore_shared_images
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import PLANS_FOLDER
from pipelines.planning.references import (
    CentroidSource,
    read_centroids,
    reference_id,
    write_centroids,
)
from pipelines.request import RunRequest
from pipelines.run_plan import wanted_references
from pipelines.storage.storage import Storage


def find_centroids(
    request: RunRequest, plan: Plan, run_id: str, *, note: Callable[[str], None]
) -> CentroidSource:
    """Return where score actors get the centroids that the rows of ``plan`` need.

    Args:
        request: Says where references are.
        plan: Of the rows.
        run_id: The run, whose references are made.
        note: Gets sentences on LoRAs that lack references.
    """
    storage = request.references_storage
    # Last, because a run that died may have committed a unit and not come to its images.
    ledger = restore_shared_images(storage, times=request.lease_times, note=note)
    wanted = wanted_references(request, plan)
    found = read_centroids(storage, wanted)
    _note_missing(wanted, ledger.made, found, storage, note)
    return write_centroids(request.storage, f"{PLANS_FOLDER}/{run_id}/centroids.parquet", found)


def _note_missing(
    wanted: Sequence[Row],
    made: Collection[str],
    found: Collection[str],
    storage: Storage,
    note: Callable[[str], None],
) -> None:
    """Say which LoRAs have no references, or fewer than were asked for."""
    missing = {
        reference_id(row.base_model_digest, row.loras[0]) for row in wanted if row.key not in made
    }
    num_none = len(missing.difference(found))
    if num_none:
        note(
            f"{num_none} LoRA(s) have no references, so rows with them get no dino_min, "
            f"dino_avg, dino_max and dino_apart; see {joined(storage.uri, 'errors')}"
        )
    if num_none < len(missing):
        note(
            f"{len(missing) - num_none} LoRA(s) have fewer references than were asked for, and "
            f"are scored against these; see {joined(storage.uri, 'errors')}"
        )
