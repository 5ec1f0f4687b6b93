"""``clora compose`` and ``clora retry``: make what is missing, and say how it came out."""

from pathlib import Path
from typing import Unpack

from jobs.console.account_line import account_line
from jobs.exit_code import ALL_MADE, INTERRUPTED, SOME_FAILED, command
from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import JobFile, load_job
from jobs.job.planning_place import planning_place
from jobs.job.run_request import run_request
from jobs.notes import note
from jobs.run_job import RunOptions, run_job
from pipelines.ledger.failure_budget import TooManyFailuresError
from pipelines.ledger.ledger import survey
from pipelines.request import RunRequest
from pipelines.session.cluster_session import preparing_session


@command()
def compose(
    path: str | Path,
    *,
    limit: int | None = None,
    only_failed: bool = False,
    **options: Unpack[RunOptions],
) -> int:
    """Run or resume the job at ``path``.

    Args:
        path: The job file.
        limit: Only the first rows of the manifest.
        only_failed: Make the rows that failed, however often, and nothing else.
        options: Where it runs, and how it is watched.

    Returns:
        The exit code: 0 every row has its image, 1 some have not and the same command may make
        them, 2 it will be refused again, 130 interrupted.
    """
    job = load_job(path)
    address = options.get("address")
    with preparing_session(address), planning_place(job, address, note=note) as check:
        prepared = prepare(job, place=str(path), check=check)
        for columns in prepared.left_out_columns():
            note(f"left out: {columns}")
        request = run_request(job, prepared, limit=limit, only_failed=only_failed)
        return _run(job, request, prepared, only_failed=only_failed, **options)


def _run(
    job: JobFile,
    request: RunRequest,
    prepared: PreparedJob,
    *,
    only_failed: bool,
    **options: Unpack[RunOptions],
) -> int:
    try:
        account = run_job(request, prepared.problems, **options)
    except TooManyFailuresError as error:
        if error.account is not None:
            print(account_line(error.account, job.output, only_failed=only_failed))
        raise
    except KeyboardInterrupt:
        num_made = survey(request.storage).num_made
        note(
            f"stopped; {num_made:,} images are committed in {job.output}, and the same command "
            "continues from there"
        )
        return INTERRUPTED
    print(account_line(account, job.output, only_failed=only_failed))
    return ALL_MADE if account.is_complete else SOME_FAILED
