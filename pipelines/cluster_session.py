"""The connection to Ray: a cluster that is named, or a private one on this machine.

A private cluster belongs to this process: loopback only, no dashboard, no usage reports, and a
token of its own, because Ray's servers accept anyone who reaches them otherwise. What the user has
set in the environment is left as it is.
"""

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cluster", "ClusterError", "cluster_session"]

OBJECT_STORE_BYTES = 1024**3
"""Enough for dozens of units on their way; pages are taken when they are used."""

_QUIET = {
    # Workers would wait for ever if the driver was started by `uv run` (ray-project/ray#50961).
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TQDM": "0",
    # Ray warns of this future default on every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class ClusterError(Exception):
    """There is no cluster at the address; the message names it and the way out."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the cluster has, and whether it is this process's own."""

    cpus: float
    gpus: float
    is_private: bool


@contextmanager
def cluster_session(address: str | None) -> Generator[Cluster]:
    """Connect to the cluster at ``address``, at ``RAY_ADDRESS``, or to a private one.

    Raises:
        ClusterError: Nobody answers there.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    with tempfile.TemporaryDirectory(prefix="clora-") as folder:
        if address is None:
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            _set_own_token(Path(folder) / "token")
        import ray

        if ray.is_initialized():
            # Tests keep one cluster for the whole session; it is theirs to end.
            yield _describe(ray, is_private=True)
            return
        try:
            with _hidden_chatter() if address is None else nullcontext():
                ray.init(**_options(address))
        except ConnectionError as error:
            raise ClusterError(
                f"no Ray cluster answers at {address!r} ({error}); start one with "
                "`ray start --head`, or leave the address out to use this machine alone"
            ) from error
        try:
            with _termination_as_interrupt():
                yield _describe(ray, is_private=address is None)
        finally:
            ray.shutdown()


@contextmanager
def _termination_as_interrupt() -> Generator[None]:
    """Let SIGTERM (a scheduler, a preempted machine) end a run as Ctrl-C does: with its record.

    Ray's own handler, which this replaces, ends the process where it stands.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _hidden_chatter() -> Generator[None]:
    """Keep what Ray's C++ half says while starting off the terminal; shown if starting fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _options(address: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": True,
        "logging_level": logging.ERROR,
    }
    if address is not None:
        return {**options, "address": address}
    return {
        **options,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "object_store_memory": OBJECT_STORE_BYTES,
    }


def _set_own_token(path: Path) -> None:
    if "RAY_AUTH_MODE" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _describe(ray: Any, *, is_private: bool) -> Cluster:
    resources = ray.cluster_resources()
    return Cluster(
        cpus=float(resources.get("CPU", 1.0)),
        gpus=float(resources.get("GPU", 0.0)),
        is_private=is_private,
    )
