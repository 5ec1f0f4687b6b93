"""How the servers of a private cluster are started, and what is said if they are not.

Ray's servers listen on the address that Ray takes for its machine's, and Ray replaces 127.0.0.1 by
the one that other machines reach. Only where it believes that clusters of several machines are not
supported does it stay on loopback, so that is what it is made to believe here. Like the token this
is read when Ray is imported.
"""

import logging
import os
import secrets
import time
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from manifests.text.text_rules import one_line
from pipelines.session.chatter import hidden_chatter
from pipelines.session.cluster_error import ClusterError, ClusterRefusesError, first_words
from pipelines.session.fewer_servers import fewer_servers
from pipelines.session.private_folder import (
    SAID_NAME,
    TOKEN_NAME,
    ray_folder,
    remove_private_folder,
)

OBJECT_STORE_BYTES = 1024**3
"""Enough for dozens of units on their way; pages are taken when they are used."""

_LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_DEFAULTS = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Of Ray's first server; a busy machine may need more than Ray's 20 to 30 seconds.
    "RAY_gcs_server_port_wait_time_s": "90",
    # Ray ends a worker that is idle for a second where there are more than processors, so storing
    # a unit began with a new process, which took a small machine's second core for seconds.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}
MAX_SAID_LINES = 5
MAX_SAID_CHARACTERS = 200


def server_settings(folder: Path) -> dict[str, str]:
    """Return the variables that Ray is to find; what the user has set is left, but for loopback.

    Raises:
        ClusterError: The user's token cannot be used, or none can be written; ``folder`` is gone.
    """
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    settings = {**defaults, **_LOOPBACK_ALONE}
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return settings
    settings["RAY_AUTH_MODE"] = "token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return settings
    if own_path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        _check_token(own_path, folder)
        return settings
    path = folder / TOKEN_NAME
    try:
        path.touch(mode=0o600)
        path.write_text(_own_token())
    except OSError as error:
        remove_private_folder(folder)
        raise ClusterError(
            f"{path} cannot be written ({error.strerror}), so no private Ray cluster can be "
            "started; make room there, or set TMPDIR to another folder with a short name"
        ) from error
    return {**settings, "RAY_AUTH_TOKEN_PATH": str(path)}


def _check_token(path: str, folder: Path) -> None:
    try:
        found = Path(path).read_text(errors="replace").strip()
        reason = None if found else "it is empty"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        remove_private_folder(folder)
        raise ClusterRefusesError(
            f"RAY_AUTH_TOKEN_PATH {one_line(repr(path), max_characters=MAX_SAID_CHARACTERS)} "
            f"cannot be used ({reason}); correct it, or unset it, and the private Ray cluster "
            "makes a token of its own"
        )


@cache
def _own_token() -> str:
    """Return this process's token; Ray reads its own once, also for a second cluster."""
    return secrets.token_hex(32)


def start_servers(folder: Path, num_cpus: int | None) -> Any:
    """Start Ray on this machine, connect this process to it, and return the module ``ray``.

    Args:
        folder: From ``make_private_folder``, its settings in the environment.
        num_cpus: Processors that Ray may give away; None for all of this machine.

    Raises:
        ClusterError: It cannot be started.
    """
    import ray
    from ray.util import get_node_ip_address

    if not ip_address(get_node_ip_address()).is_loopback:
        raise ClusterError(
            "Ray would listen beyond this machine, because it was imported before its private "
            "cluster was set up; import it later, or set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 and "
            "RAY_AUTH_MODE=token before, or start a cluster and name its address"
        )
    begun_s = time.monotonic()
    try:
        with hidden_chatter(folder / SAID_NAME), fewer_servers():
            ray.init(
                # Not None: that is any cluster that was started on this machine.
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(ray_folder(folder)),
            )
    except Exception as error:  # Ray has no one class for what goes wrong here
        passed_s = time.monotonic() - begun_s
        raise _not_started(error, passed_s=passed_s, folder=folder) from error
    return ray


def _not_started(error: Exception, *, passed_s: float, folder: Path) -> ClusterError:
    logs = ray_folder(folder) / "session_latest" / "logs"
    sentence = (
        f"Ray could not be started on this machine; after {passed_s:.0f} s: {first_words(error)}; "
        f"its logs are in {logs} until the next run; look for too little memory, a full disk, "
        "a full shared memory (`df /dev/shm`) and low limits of processes and open files "
        "(`ulimit -u`, `ulimit -n`), or run the same command again when the machine is less busy"
    )
    said = [f"Ray said: {line}" for line in _last_said(folder / SAID_NAME)]
    return ClusterError("\n".join([*said, sentence]))


def _last_said(path: Path) -> list[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return [one_line(line, max_characters=MAX_SAID_CHARACTERS) for line in lines[-MAX_SAID_LINES:]]
