"""Exit codes, with one meaning each in every command, and those of a job on a cluster.

2 means that the same command will be refused again, so a schedule gives up on it. Whatever may come
back (a store, a cluster, a lease that another run holds) ends with 1, started or not.

Ray's own client says 1 for anything that went wrong. The details of a job have the exit code of the
process itself, so a submission can say what ``compose`` would have said on the same machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

from clora_core.recipe.errors import CloraError
from jobs.notes import log_event, note

ALL_MADE = 0
SOME_FAILED = 1
"""Something is not made, or was left out; the same command may do better."""

BAD_INPUT = 2
"""The same command will be refused again."""

INTERRUPTED = 130

Given = ParamSpec("Given")


def command(*, refused: int = BAD_INPUT) -> Callable[[Callable[Given, int]], Callable[Given, int]]:
    """Decorate a command: an error that is a sentence for the user is printed, and ends it.

    Errors become exit codes here, and in the few commands that still have something to do then; all
    others than ``CloraError`` are faults of the program and pass.

    Args:
        refused: Exit code of what is refused again, for commands that end with 0 or 1.
    """

    def decorated(work: Callable[Given, int]) -> Callable[Given, int]:
        @wraps(work)
        def run(*arguments: Given.args, **options: Given.kwargs) -> int:
            try:
                return work(*arguments, **options)
            except CloraError as error:
                text = "\n".join([str(error), *getattr(error, "__notes__", [])])
                if options.get("log_format") == "json":
                    _log(error, text, refused)
                else:
                    note(text)
                return min(error.exit_code, refused)

        return run

    return decorated


def _log(error: CloraError, text: str, refused: int) -> None:
    code = min(error.exit_code, refused)
    log_event("error", error.run_id, error=error.kind, exit_code=code, text=text)


_NEVER_STARTED = (
    "RUNTIME_ENV_SETUP_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR",
)
"""Ray's names of failures before the job's process began."""


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended, in Ray's words.

    Attributes:
        status: SUCCEEDED, FAILED or STOPPED.
        driver_exit_code: Of the job's process; None if it never ended by itself.
        error_type: Ray's name of the failure.
        message: Ray's sentence.
    """

    status: str
    driver_exit_code: int | None = None
    error_type: str | None = None
    message: str | None = None


def exit_code_of(end: JobEnd, *, told_account: bool) -> tuple[int, str | None]:
    """Return the exit code of a submission, and a sentence if the job's log does not explain it.

    Args:
        end: How the job ended.
        told_account: Its log has the line of counts that a run ends with.
    """
    if end.status == "SUCCEEDED":
        return ALL_MADE, None
    if end.status == "STOPPED":
        return INTERRUPTED, "the job was stopped; the same command continues from there"
    explained = (BAD_INPUT, INTERRUPTED, *((SOME_FAILED,) if told_account else ()))
    if end.driver_exit_code in explained:
        return end.driver_exit_code, None
    if end.driver_exit_code is None and end.error_type in _NEVER_STARTED:
        return SOME_FAILED, f"nothing was started: {end.message or end.error_type}"
    reason = (
        f"its process ended with {end.driver_exit_code}"
        if end.driver_exit_code is not None
        else end.message or end.error_type or "Ray gives no reason"
    )
    return SOME_FAILED, (
        f"the run did not come to its end ({reason}); what is committed stays, and the same "
        "command continues from there"
    )
