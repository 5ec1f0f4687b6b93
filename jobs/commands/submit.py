"""``clora submit``: a job through Ray's job API, shown as if it ran here.

Checks what can be checked, submits once (``jobs.remote.submission`` makes the name), shows the
job's log as it grows, and ends with the exit code that ``clora compose`` has there. Ctrl-C lets go
of the log and not of the job, which continues alone; the same command takes the log up again.
"""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from jobs.exit_code import ALL_MADE, BAD_INPUT, INTERRUPTED, command, exit_code_of
from jobs.notes import note
from jobs.remote.job_server import JobServer, open_job_server
from jobs.remote.preflight import check_before_sending
from jobs.remote.server_error import ServerError, ServerRefusesError
from jobs.remote.submission import Submission, content_name, entrypoint, last_try, try_name

READY_TIMEOUT_S = 120.0
RETRY_EVERY_S = 2.0

OLDEST_RAY = (2, 60)
"""As in pyproject.toml."""

_NOT_READY = ("No available agent", "agent to submit job")
_DISTRIBUTION = "clora-batch"
_TAIL_CHARACTERS = 4096


@command()
def submit(
    path: Path,
    *,
    address: str | None = None,
    submission_id: str | None = None,
    working_dir: Path = Path(),
    metrics_port: str | None = None,
    log_format: str = "text",
    connect: Callable[[str | None], JobServer] = open_job_server,
) -> int:
    """Submit the job at ``path``, or take up the one that runs already; return its exit code.

    Args:
        path: The job file.
        address: Of the cluster's dashboard; None for Ray's own rules (``RAY_ADDRESS``).
        submission_id: Names the work; None takes a name made from its content.
        working_dir: Folder that is sent to the cluster.
        metrics_port: Where the job serves its metrics, on the machine that drives it.
        log_format: ``text`` for people, ``json`` for one JSON object a line.
        connect: Opens the job server; tests give their own.

    Returns:
        0 all made, 1 some failed or no server answers, 2 refused again, 130 stopped or detached.
    """
    options = [] if metrics_port is None else ["--metrics-port", metrics_port]
    options += [] if log_format == "text" else ["--log", log_format]
    found = check_before_sending(path, working_dir)
    for text in (*found.notes, *found.refusals):
        note(text)
    if found.refusals:
        return BAD_INPUT
    server = connect(address)
    _compare_versions(server, working_dir)
    submission = Submission(
        name=submission_id or content_name(path, found.content),
        entrypoint=entrypoint(found.command, path, working_dir, options),
        working_dir=working_dir.absolute(),
        metadata={"job": str(path), _DISTRIBUTION: version(_DISTRIBUTION)},
    )
    return _follow(server, _start(server, submission))


def _start(server: JobServer, submission: Submission) -> str:
    """Return the id of the job that does the work: a new one, or the one there is."""
    last = last_try(submission.name, server.jobs())
    number = 1 if last is None else last.number + 1 if last.is_over else last.number
    submission_id = try_name(submission.name, number)
    if last is not None and not last.is_over:
        state = "is done already" if last.is_done else "runs already"
        note(f"{submission_id} {state}; nothing was submitted")
        return submission_id
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            is_new = server.submit(
                submission_id,
                submission.entrypoint,
                submission.working_dir,
                dict(submission.metadata),
            )
        except ServerError as error:
            # A head that has just started has no agent for jobs yet.
            is_early = any(sign in str(error) for sign in _NOT_READY)
            if not is_early or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_EVERY_S)
            continue
        outcome = "submitted" if is_new else "was submitted by another at this moment"
        note(f"{submission_id} {outcome}, at {server.address}")
        return submission_id


def _follow(server: JobServer, submission_id: str) -> int:
    """Show the job's log until it ends; return the exit code."""
    num_shown = 0
    tail = ""
    try:
        while True:
            num_seen = 0
            for chunk in server.follow(submission_id):
                # After a lost connection the log comes from its start again.
                new = chunk[max(0, num_shown - num_seen) :]
                num_seen += len(chunk)
                num_shown = max(num_shown, num_seen)
                tail = (tail + new)[-_TAIL_CHARACTERS:]
                print(new, end="", flush=True)
            end = server.end(submission_id)
            if end is not None:
                break
            time.sleep(RETRY_EVERY_S)
    except KeyboardInterrupt:
        note(
            f"\nlet go of {submission_id}, which goes on; the same command shows it again, "
            f"`ray job stop {submission_id}` stops it"
        )
        return INTERRUPTED
    except ServerError as error:
        raise ServerError(
            f"lost {submission_id}: {error}; the same command looks for it again"
        ) from error
    code, sentence = exit_code_of(end, told_account=" made, " in tail)
    if sentence is not None:
        note(f"{submission_id}: {sentence}")
    elif code == ALL_MADE and not tail:
        note(f"{submission_id}: all made")
    return code


def _compare_versions(server: JobServer, working_dir: Path) -> None:
    """Tell the versions of both sides; refuse a cluster that this release cannot run on.

    Raises:
        ServerError: The cluster's Ray is too old.
    """
    import ray

    theirs, their_python = server.versions()
    if tuple(int(part) for part in theirs.split(".")[:2]) < OLDEST_RAY:
        oldest = ".".join(map(str, OLDEST_RAY))
        raise ServerRefusesError(
            f"the cluster runs Ray {theirs} and this release needs {oldest} or later; install it "
            "there, or submit to another cluster"
        )
    own = version(_DISTRIBUTION)
    is_sent = (working_dir / "pipelines" / "run.py").is_file()
    code = f"{own}, sent along" if is_sent else f"{own} here, what is installed there is unknown"
    note(
        f"Ray {ray.__version__} here, {theirs} there; Python {platform.python_version()} here, "
        f"{their_python} there; {_DISTRIBUTION} {code}"
    )
