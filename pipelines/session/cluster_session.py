"""The connection to Ray: a cluster that is named, or a private one on this machine.

What the user has set in the environment is left as it is, but that a private cluster is reached
from this machine alone, see ``private_cluster``.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

from pipelines.session.chatter import NOWHERE, hidden_chatter
from pipelines.session.cluster_address import AUTO, ClusterAddress, find_address
from pipelines.session.cluster_error import ClusterError, not_reached
from pipelines.session.early_start import starting_early
from pipelines.session.knock import knock
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
_OPEN: list[bool] = []
"""Whether the open session's cluster is private."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
"""Names that Ray replaces."""


@contextmanager
def preparing_session(address: str | None) -> Generator[None]:
    """Let the private cluster of a session within the block start meanwhile, if it has one.

    Args:
        address: As that of the session.

    Raises:
        ClusterError: It is no address.
    """
    _keep_quiet()
    is_private = find_address(address, os.environ).text is None
    # Where Ray is imported, a session would be within another one, or refused.
    with starting_early() if is_private and "ray" not in sys.modules else nullcontext():
        yield


@contextmanager
def cluster_session(
    address: str | None, *, note: Callable[[str], None] = lambda _text: None
) -> Generator[Cluster]:
    """Connect to the cluster at ``address``, at ``RAY_ADDRESS``, or to a private one.

    Args:
        address: As ``cluster_address`` reads it.
        note: Called with a sentence for the user.

    Raises:
        ClusterError: Nobody answers there, or it wants something else; no private one can be
            started.
    """
    _keep_quiet()
    place = find_address(address, os.environ)
    is_private = place.text is None
    running = _running_ray()
    if running is not None:
        # A session within another one, or a cluster that tests keep; it is theirs to end.
        yield _describe(running, is_private=_OPEN[-1] if _OPEN else True)
        return
    connected = private_cluster(note=note) if is_private else _connection(place)
    with connected as ray, _termination_as_interrupt():
        _OPEN.append(is_private)
        try:
            yield _describe(ray, is_private=is_private)
        finally:
            _OPEN.pop()


def _keep_quiet() -> None:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def _running_ray() -> Any | None:
    """Return Ray if it is connected already; importing it here would be too early."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None


@contextmanager
def _connection(place: ClusterAddress) -> Generator[Any]:
    import ray

    try:
        with hidden_chatter(NOWHERE):
            _knock(place, ray)
            ray.init(
                address=place.text,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray has no one class for what goes wrong here
        raise not_reached(place.place, error, way_home=place.way_home) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(place: ClusterAddress, ray: Any) -> None:
    found = place.host_and_port or _found_by_ray()
    if found is None:
        return
    host, port = found
    host = ray.util.get_node_ip_address() if host in _THIS_MACHINE else host
    knock(host, port, place=place.place, way_home=place.way_home)


def _found_by_ray() -> tuple[str, int] | None:
    """Return where Ray's own cluster of this machine is, or was: its file may outlast it.

    Raises:
        ClusterError: There is none.
    """
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:
        return None
    try:
        found = str(canonicalize_bootstrap_address(AUTO))
    except ConnectionError as error:
        raise ClusterError(
            "no Ray cluster runs on this machine, which the address 'auto' asks for; start one "
            "with `ray start --head`, or write 'local' for one of the run's own"
        ) from error
    host, _, port = found.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


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
