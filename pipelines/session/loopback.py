"""Whether this machine has what the servers of a private cluster need of its network.

Ray waits for minutes for a server that could not listen, and then names another reason.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from manifests.text.text_rules import one_line
from pipelines.session.cluster_error import ClusterError, ClusterRefusesError

HOST = "127.0.0.1"
NUM_PORTS = 16
"""That Ray's servers and a few workers listen at; a run with many actors needs more."""

CONNECT_S = 5.0
GCS_PORT_VARIABLE = "RAY_GCS_SERVER_PORT"
_MAX_PORT = 65535
_MAX_WORDS = 200


def check_loopback(environment: Mapping[str, str]) -> None:
    """Return if a private cluster can listen on loopback, and be reached there.

    Raises:
        ClusterError: It cannot now: no free ports, too few open files, loopback is down.
        ClusterRefusesError: The port that ``environment`` wants for it is no port.
    """
    _check_free_ports()
    wanted = environment.get(GCS_PORT_VARIABLE)
    if wanted:
        _check_wanted_port(wanted)


def _check_free_ports() -> None:
    with ExitStack() as opened:
        try:
            listeners = [opened.enter_context(socket.socket()) for _ in range(NUM_PORTS)]
            for listener in listeners:
                listener.bind((HOST, 0))
                listener.listen()
            address = listeners[0].getsockname()
            opened.enter_context(socket.create_connection(address, timeout=CONNECT_S))
        except OSError as error:
            raise ClusterError(
                f"no private Ray cluster can be started: {NUM_PORTS} servers cannot listen at "
                f"{HOST} ({os.strerror(error.errno or 0)}); look whether loopback is up (`ip addr "
                "show lo`), ports are free (`ss -tan | wc -l`) and enough files may be open "
                "(`ulimit -n`), or name a cluster with --address"
            ) from error


def _check_wanted_port(wanted: str) -> None:
    shown = f"{GCS_PORT_VARIABLE} {one_line(repr(wanted), max_characters=_MAX_WORDS)}"
    way_out = f"unset {GCS_PORT_VARIABLE}, and a private cluster takes a port that is free"
    if not (wanted.isascii() and wanted.isdecimal() and int(wanted) <= _MAX_PORT):
        raise ClusterRefusesError(f"{shown} is no port; {way_out}")
    with socket.socket() as listener:
        # As Ray's server does, for a port that a cluster had a moment ago.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, int(wanted)))
        except OSError as error:
            raise ClusterError(
                f"{shown} cannot be used ({os.strerror(error.errno or 0)}); {way_out}"
            ) from error
