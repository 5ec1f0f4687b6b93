"""What is submitted and under which name, as values: nothing here talks to a cluster.

A submission is named for its content, because Ray refuses a name that it has seen: whoever submits
the same work twice, or two schedules at once, gets the first one's job and not a second. A job that
failed or was stopped is tried again under the same name with a number behind it.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.canonical import canonical_json

_DIGEST_LENGTH = 12
_MAX_STEM_LENGTH = 40
_ENDED_WELL = "SUCCEEDED"
_ENDED_BADLY = ("FAILED", "STOPPED")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """Work for a cluster.

    Attributes:
        name: The submission id of its first attempt.
        entrypoint: Command line that the cluster runs.
        working_dir: Folder that is sent.
        metadata: Told by ``ray job list`` beside the job.
    """

    name: str
    entrypoint: str
    working_dir: Path
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class JobTry:
    """A job that the cluster knows under a submission's name.

    Attributes:
        number: From 1.
        status: As Ray has it: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
    """

    number: int
    status: str

    @property
    def is_over(self) -> bool:
        """Whether it ended without making everything, so that another one may begin."""
        return self.status in _ENDED_BADLY

    @property
    def is_done(self) -> bool:
        """Whether it made everything."""
        return self.status == _ENDED_WELL


def content_name(job_path: Path, content: Mapping[str, object]) -> str:
    """Return the name of the work: the job file's own name and a digest of all that it asks for.

    Args:
        job_path: The job file.
        content: Everything that makes it other work: settings, and what its inputs hold.
    """
    folder = job_path.absolute().parent.name
    stem = re.sub(r"[^a-z0-9]+", "-", f"{folder}-{job_path.stem}".lower()).strip("-")
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return f"clora-{stem[-_MAX_STEM_LENGTH:].strip('-')}-{digest[:_DIGEST_LENGTH]}"


def try_name(name: str, number: int) -> str:
    """Return the submission id of the ``number``-th attempt, from 1."""
    return name if number == 1 else f"{name}-try{number}"


def try_number(name: str, submission_id: str) -> int | None:
    """Return which attempt of ``name`` a submission id is; None if it is other work."""
    if submission_id == name:
        return 1
    match = re.fullmatch(re.escape(name) + r"-try([1-9]\d*)", submission_id)
    return int(match.group(1)) if match else None


def last_try(name: str, jobs: Iterable[tuple[str | None, str]]) -> JobTry | None:
    """Return the latest attempt among a cluster's jobs; None if there was none.

    Args:
        name: Of the submission.
        jobs: (submission id, status) of every job of the cluster.
    """
    attempts = [
        JobTry(number=number, status=status)
        for submission_id, status in jobs
        if submission_id is not None and (number := try_number(name, submission_id)) is not None
    ]
    return max(attempts, key=lambda attempt: attempt.number, default=None)


def entrypoint(command: str, job_path: Path, working_dir: Path, options: Sequence[str] = ()) -> str:
    """Return the command line: the job file relative to the folder that is sent, if it is in it."""
    path, folder = job_path.absolute(), working_dir.absolute()
    job = path.relative_to(folder) if path.is_relative_to(folder) else path
    return shlex.join(["python", "-m", "jobs", command, job.as_posix(), *options])
