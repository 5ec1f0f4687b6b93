"""From a checked job to a request to the engine: the only place that knows both."""

from jobs.job.inputs import PreparedJob
from jobs.job.job_file import JobFile
from manifests.places.folder_cache import local_folder
from manifests.places.place_names import joined
from manifests.weights.digests import folder_digest
from pipelines.planning.references import ReferenceSettings
from pipelines.request import RunRequest
from pipelines.stages.model_host import ModelHostSource
from pipelines.stages.score import ScorerSource
from pipelines.storage.storage import open_storage

_SHORT_DIGEST = 12


def references_folder(dino_digest: str | None) -> str:
    """Return the folder of references, within the place where a job keeps them.

    Features of one DINO model say nothing to another, so each has references of its own.
    """
    return f"dino-{(dino_digest or 'none')[:_SHORT_DIGEST]}"


def run_request(
    job: JobFile, prepared: PreparedJob, *, limit: int | None = None, only_failed: bool = False
) -> RunRequest:
    """Return what the engine is to do.

    Args:
        job: The job file.
        prepared: The same job, its inputs checked.
        limit: Only the first rows of the manifest; None for all.
        only_failed: Make the rows that failed, however often, and nothing else.

    Raises:
        StorageError: The output is in a place that commits cannot be made atomic on.
    """
    resources = job.resources
    models, by_digest = prepared.models, prepared.models_by_digest
    dino_dir = prepared.scoring.model_dir
    dino_digest = None if dino_dir is None else folder_digest(local_folder(dino_dir))
    references_at = job.scoring.references_at
    folder = references_folder(dino_digest)
    return RunRequest(
        rows=prepared.rows[:limit],
        storage=open_storage(job.output, retry_s=resources.store_retry_s),
        references_storage=open_storage(
            joined(references_at or joined(job.output, "references"), folder),
            retry_s=resources.store_retry_s,
            within=None if references_at else job.output,
        ),
        references_folder=None if references_at else f"references/{folder}",
        fused_storage=open_storage(job.fused_at or job.output, retry_s=resources.store_retry_s),
        references={}
        if dino_dir is None
        else {
            digest: ReferenceSettings(
                num_references=prepared.scoring.num_references,
                sampler=model.sampler,
                side_px=model.facts.default_size_px,
                dtype=resources.dtype,
            )
            for digest, model in by_digest.items()
        },
        load_model_host=ModelHostSource(
            base_model_dirs={digest: model.place for digest, model in by_digest.items()},
            resources=resources,
        ),
        load_scorer=None if dino_dir is None else ScorerSource(dino_dir=dino_dir),
        scores_windows=job.scoring.windows,
        base_model_digest=models[""].facts.digest,
        base_models={name: model.facts.digest for name, model in models.items() if name},
        dino_digest=dino_digest,
        resources=resources,
        failure_budget=job.failure_budget,
        only_failed=only_failed,
        job=_resolved(job, prepared).model_dump(mode="json"),
    )


def _resolved(job: JobFile, prepared: PreparedJob) -> JobFile:
    """Return the job with the number of references that its rows came to."""
    if job.scoring.references is not None or prepared.scoring.model_dir is None:
        return job
    scoring = job.scoring.model_copy(update={"references": prepared.scoring.num_references})
    return job.model_copy(update={"scoring": scoring})
