"""A cluster's job server: submit, look, follow. The only place that knows Ray's client.

What the commands need of it is a protocol, so that they are tested with a server that is a list.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import yaml

from jobs.exit_code import JobEnd
from jobs.remote.server_address import (
    WAY_OUT,
    check_server,
    find_server,
    only_address,
    proxy_words,
)
from jobs.remote.server_error import ServerError, ServerRefusesError

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class JobServer(Protocol):
    """What submitting needs of a cluster."""

    address: str

    def versions(self) -> tuple[str, str]:
        """Return the cluster's versions of Ray and Python."""
        ...

    def jobs(self) -> list[tuple[str | None, str]]:
        """Return (submission id, status) of every job that the cluster knows."""
        ...

    def submit(self, submission_id: str, command: str, folder: Path, told: dict[str, str]) -> bool:
        """Start a job; return False if there is one of that id already."""
        ...

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the job says, from its first line, until it has ended."""
        ...

    def end(self, submission_id: str) -> JobEnd | None:
        """Return how a job ended; None if it has not."""
        ...


def runtime_env(folder: Path) -> dict[str, Any]:
    """Return Ray's runtime environment: the folder, less what the cluster files leave out."""
    from cluster.upload import RUNTIME_ENV

    values = cast("dict[str, Any]", yaml.safe_load(RUNTIME_ENV.read_text()))
    return {**values, "working_dir": str(folder)}


class RayJobServer:
    """Ray's job server, through its own client."""

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self.address = address

    def versions(self) -> tuple[str, str]:
        """Return the cluster's versions of Ray and Python.

        Raises:
            ServerError: It does not tell them, as no Ray that this release runs on does.
        """
        ask = self._client._do_request  # what Ray's dashboard asks; its client has no name for it
        answer = _asked(lambda: ask("GET", "/api/v0/cluster_metadata"))
        try:
            data = answer.json()["data"]
            return str(data["rayVersion"]), str(data["pythonVersion"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServerRefusesError(
                f"{self.address} does not tell its version; name the dashboard of a Ray cluster"
            ) from error

    def jobs(self) -> list[tuple[str | None, str]]:
        """Return (submission id, status) of every job that the cluster knows."""
        return [(job.submission_id, job.status.value) for job in _asked(self._client.list_jobs)]

    def submit(self, submission_id: str, command: str, folder: Path, told: dict[str, str]) -> bool:
        """Start a job; return False if there is one of that id already.

        Raises:
            ServerError: The server refuses.
        """
        from ray.exceptions import RayError

        try:
            self._client.submit_job(
                entrypoint=command,
                submission_id=submission_id,
                runtime_env=runtime_env(folder),
                metadata=told,
            )
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            raise ServerError(_first_line(error)) from error
        except ValueError as error:
            raise ServerRefusesError(_first_line(error)) from error
        except (OSError, RayError) as error:
            raise ServerError(_first_line(error)) from error
        return True

    def follow(self, submission_id: str) -> Iterator[str]:
        """Yield what the job says, from its first line, until the connection ends."""
        with asyncio.Runner() as runner:
            chunks: AsyncIterator[str] = self._client.tail_job_logs(submission_id)
            try:
                while (chunk := runner.run(_next(chunks))) is not None:
                    yield chunk
            except (RuntimeError, OSError):
                # The connection, not the job: whoever follows asks how the job is.
                return

    def end(self, submission_id: str) -> JobEnd | None:
        """Return how a job ended; None if it has not."""
        info = _asked(lambda: self._client.get_job_info(submission_id))
        if info.status.value not in ENDED:
            return None
        return JobEnd(
            status=info.status.value,
            driver_exit_code=info.driver_exit_code,
            error_type=info.error_type,
            message=info.message,
        )


def open_job_server(address: str | None) -> JobServer:
    """Connect to the job server at ``address`` (Ray's own rules apply if it is None).

    Raises:
        ServerError: Nobody answers there, or it wants a token.
    """
    found = find_server(address, os.environ)
    check_server(found)
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    # Its client tells of every upload and of how each connection closed.
    logging.getLogger("ray.dashboard").setLevel(logging.WARNING)
    place = f"{found.place}{proxy_words(found)}"
    try:
        with only_address(found):
            client = JobSubmissionClient(found.text)
    except ConnectionError as error:
        raise ServerError(f"no job server answers at {place}; {WAY_OUT}") from error
    except RayError as error:
        raise ServerRefusesError(
            f"the job server at {place} wants a token ({_first_line(error)}); set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that the cluster has"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServerRefusesError(
            f"what answers at {place} is not the dashboard of a Ray cluster "
            f"({_first_line(error)}); name one, http://HOST:8265"
        ) from error
    except (RuntimeError, OSError) as error:
        raise ServerError(f"the job server at {place} refuses: {_first_line(error)}") from error
    return RayJobServer(client, client.get_address())


async def _next(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)


def _asked(ask: Callable[[], Any]) -> Any:
    # Imported late: Ray reads its environment when it is imported, and whoever starts it sets it.
    from ray.exceptions import RayError

    try:
        return ask()
    except (RuntimeError, OSError, RayError) as error:
        raise ServerError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
