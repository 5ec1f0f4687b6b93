"""``clora compose`` and ``clora retry``: make what is missing, and say how it came out.

Also ``python -m jobs.compose JOB``, which is what ``ray job submit`` runs: the same code with the
same job file, on whatever cluster the environment names.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.account_line import account_line
from jobs.exit_code import (
    ALL_MADE,
    EXPECTED_ERRORS,
    INTERRUPTED,
    SOME_FAILED,
    code_of_error,
)
from jobs.inputs import prepare
from jobs.job_file import load_job
from jobs.json_progress import JsonProgress
from jobs.progress import open_progress
from jobs.run_request import run_request
from pipelines.accounting import Account
from pipelines.failure_budget import TooManyFailuresError, commonest_reasons
from pipelines.ledger import survey
from pipelines.metrics_server import parse_address
from pipelines.request import Observer, RunRequest
from pipelines.run import compose_rows
from pipelines.run_record import new_run_id

__all__ = ["compose", "exit_code", "open_log"]


def compose(
    path: str | Path,
    *,
    address: str | None = None,
    limit: int | None = None,
    only_failed: bool = False,
    metrics_port: str | None = None,
    log_format: str = "text",
) -> int:
    """Run or resume the job at ``path``.

    Args:
        path: The job file.
        address: Of a Ray cluster; None for ``RAY_ADDRESS`` or this machine alone.
        limit: Only the first rows of the manifest.
        only_failed: Make the rows that failed, however often, and nothing else.
        metrics_port: ``PORT`` on loopback, or ``HOST:PORT``, to serve metrics at; None for none.
        log_format: ``text`` for people, ``json`` for one JSON object a line.

    Returns:
        The exit code: 0 every row has its image, 1 some have not and the same command may make
        them, 2 it will be refused again, 130 interrupted.
    """
    try:
        job = load_job(path)
        prepared = prepare(job, place=str(path))
        request = replace(
            run_request(job, prepared, limit=limit, only_failed=only_failed),
            run_id=new_run_id(datetime.now(UTC)),
            metrics_at=None if metrics_port is None else parse_address(metrics_port),
        )
    except EXPECTED_ERRORS as error:
        print(error, file=sys.stderr)
        return code_of_error(error)
    try:
        with open_log(log_format, request.run_id or "") as progress:
            for problem in prepared.problems:
                progress.note(f"{problem}; its rows will fail")
            account = compose_rows(request, progress, address=address)
    except EXPECTED_ERRORS as error:
        print(error, file=sys.stderr)
        return code_of_error(error)
    except TooManyFailuresError as error:
        print(error, file=sys.stderr)
        _print_reasons(request)
        if error.account is not None:
            print(account_line(error.account, job.output, only_failed=only_failed))
        return SOME_FAILED
    except KeyboardInterrupt:
        num_made = len(survey(request.storage).made)
        print(
            f"stopped; {num_made:,} images are committed in {job.output}, and the same command "
            "goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    print(account_line(account, job.output, only_failed=only_failed))
    return exit_code(account)


def open_log(log_format: str, run_id: str) -> AbstractContextManager[Observer]:
    """Return the progress of ``log_format``: JSON lines, or what suits standard error."""
    if log_format == "json":
        return nullcontext(JsonProgress(sys.stderr, run_id))
    return open_progress()


def _print_reasons(request: RunRequest) -> None:
    """Print what most of the rows failed of."""
    errors = survey(request.storage).last_errors.values()
    print("\n".join(["why rows failed:", *commonest_reasons(errors)]), file=sys.stderr)


def exit_code(account: Account) -> int:
    """Return 0 if every row has its image once, else 1."""
    return ALL_MADE if account.is_complete else SOME_FAILED


if __name__ == "__main__":
    from jobs.cli import main

    main(["compose", *sys.argv[1:]])
