"""The connection to Ray: a cluster that is named, or a private one on this machine.

What the user has set in the environment is left as it is, but that a private cluster is reached
from this machine alone, see ``private_cluster``.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pipelines.session.cluster_error import not_reached
from pipelines.session.private_cluster import private_cluster
from pipelines.session.shares import Cluster

_QUIET = {
    # Workers would wait for ever if the driver was started by `uv run` (ray-project/ray#50961).
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TQDM": "0",
    # Ray warns of this future default on every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_PRIVATE = (None, "", "local")
KNOCK_S = 20.0
"""How long nobody may answer; a head that is being started again does by then."""

KNOCK_EVERY_S = 0.5
MAX_PORT = 65535
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names that Ray replaces."""


@contextmanager
def cluster_session(address: str | None) -> Generator[Cluster]:
    """Connect to the cluster at ``address``, at ``RAY_ADDRESS``, or to a private one.

    Raises:
        ClusterError: Nobody answers there, or it wants something else; no private one can be
            started.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS")
    is_private = address in _PRIVATE
    running = _running_ray()
    if running is not None:
        # Tests keep one cluster for the whole session; it is theirs to end.
        yield _describe(running, is_private=True)
        return
    connected = private_cluster() if is_private else _connection(str(address))
    with connected as ray, _termination_as_interrupt():
        yield _describe(ray, is_private=is_private)


def _running_ray() -> Any | None:
    """Return Ray if it is connected already; importing it here would be too early."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


@contextmanager
def _connection(address: str) -> Generator[Any]:
    import ray

    try:
        _knock(address, ray.util.get_node_ip_address())
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray has no one class for what goes wrong here
        raise not_reached(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str, own_host: str) -> None:
    """Try whether somebody answers at ``HOST:PORT``; Ray itself tries for a quarter of an hour.

    Args:
        address: Of a cluster; other forms than this one are left to Ray.
        own_host: What Ray takes this machine's own name for.

    Raises:
        OSError: Nobody answered for a while.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > MAX_PORT:
        return
    host = own_host if host in _THIS_MACHINE else host.strip("[]")
    until_s = time.monotonic() + KNOCK_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(KNOCK_EVERY_S)
        else:
            return


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


def _describe(ray: Any, *, is_private: bool) -> Cluster:
    resources = ray.cluster_resources()
    return Cluster(
        cpus=float(resources.get("CPU", 1.0)),
        gpus=float(resources.get("GPU", 0.0)),
        is_private=is_private,
    )
