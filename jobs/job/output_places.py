"""Whether a job's output can be written, tried before anything is made; nothing is left there."""

from jobs.job.job_file import JobFile
from manifests.text.problems import Problem
from pipelines.storage.error import PlaceError
from pipelines.storage.storage import open_storage


def output_problems(job: JobFile, *, place: str) -> list[Problem]:
    """Return a problem for each place that a run of the job could not write to.

    Args:
        job: The job.
        place: The job file, for messages.

    Raises:
        StorageError: A place cannot be used now; it may be possible later.
    """
    places = {"output": job.output}
    if job.scoring.references != 0 and job.scoring.references_at is not None:
        places["scoring.references_at"] = job.scoring.references_at
    if job.fused_at is not None:
        places["fused_at"] = job.fused_at
    problems: list[Problem] = []
    for field, uri in places.items():
        try:
            open_storage(uri, retry_s=job.resources.store_retry_s).check_writable()
        except PlaceError as error:
            problems.append(Problem(place=place, field=field, problem=str(error)))
    return problems
