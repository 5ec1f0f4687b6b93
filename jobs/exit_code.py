"""Exit codes, with one meaning each in every command, and those of a job on a cluster.

2 means that the same command will be refused again, so a schedule gives up on it. Whatever may come
back (a store, a cluster, a lease that another run holds) ends with 1, started or not.

Ray's own client says 1 for anything that went wrong. The details of a job have the exit code of the
process itself, so a submission can say what ``compose`` would have said on the same machine.
"""

from dataclasses import dataclass

from manifests.locations import StoreAwayError
from manifests.problems import InputError
from pipelines.cluster_session import ClusterError
from pipelines.lease import LeaseHeldError, LeaseLostError
from pipelines.ledger import LedgerError
from pipelines.metrics_server import MetricsAddressError, MetricsPortError
from pipelines.output_files import DamagedFileError
from pipelines.shares import SharesError
from pipelines.storage import PlaceError, StorageError

__all__ = [
    "ALL_MADE",
    "BAD_INPUT",
    "EXPECTED_ERRORS",
    "INTERRUPTED",
    "SOME_FAILED",
    "JobEnd",
    "code_of_error",
    "exit_code_of",
]

ALL_MADE = 0
SOME_FAILED = 1
"""Something is not made, or was left out; the same command may do better."""

BAD_INPUT = 2
"""The same command will be refused again."""

INTERRUPTED = 130

_REFUSED = (
    InputError,
    PlaceError,
    SharesError,
    MetricsAddressError,
    # Until they are repaired.
    LedgerError,
    DamagedFileError,
)

EXPECTED_ERRORS = (
    *_REFUSED,
    StorageError,
    StoreAwayError,
    ClusterError,
    LeaseHeldError,
    LeaseLostError,
    MetricsPortError,
)
"""Errors whose text is a sentence for the user; all others are faults of the program."""


def code_of_error(error: Exception) -> int:
    """Return the exit code of a command that ended with one of ``EXPECTED_ERRORS``."""
    return BAD_INPUT if isinstance(error, _REFUSED) else SOME_FAILED


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
        return INTERRUPTED, "the job was stopped; the same command goes on from there"
    if end.driver_exit_code == BAD_INPUT:
        return BAD_INPUT, None
    if end.driver_exit_code == INTERRUPTED:
        return INTERRUPTED, None
    if end.driver_exit_code is None and end.error_type in _NEVER_STARTED:
        return SOME_FAILED, f"nothing was started: {end.message or end.error_type}"
    if end.driver_exit_code == SOME_FAILED and told_account:
        return SOME_FAILED, None
    reason = (
        f"its process ended with {end.driver_exit_code}"
        if end.driver_exit_code is not None
        else end.message or end.error_type or "Ray gives no reason"
    )
    return SOME_FAILED, (
        f"the run did not come to its end ({reason}); what is committed stays, and the same "
        "command goes on from there"
    )
