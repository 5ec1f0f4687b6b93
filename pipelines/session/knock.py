"""Whether the head of a Ray cluster answers at an address, found out before Ray tries.

Ray itself tries for a quarter of an hour, in calls that no Ctrl-C interrupts, and cannot say what
answers there instead. So somebody must take the connection, and then answer as a head does.
"""

import socket
import time
from collections.abc import Callable
from typing import Any

from manifests.text.text_rules import one_line
from pipelines.session.cluster_error import (
    ClusterError,
    ClusterRefusesError,
    not_reached,
    token_refused,
)

KNOCK_S = 15.0
"""How long nobody may answer; a head that is being started again does by then."""

KNOCK_EVERY_S = 0.5

_METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What Ray's own drivers ask first; it takes an empty message and changes nothing."""

_NO_SUCH_METHOD = "UNIMPLEMENTED"
_NO_TOKEN = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_OTHER_PROTOCOL = ("http1.x", "Failed parsing HTTP/2")
_MAX_WORDS = 200

Ask = Callable[[str, float], None]
"""Ask what answers at ``HOST:PORT``, for so many seconds at most; an exception is the answer."""


def ask_head(target: str, timeout_s: float) -> None:
    """Ask for the id of the cluster, over TLS and with a token where Ray is set up for them.

    Raises:
        grpc.RpcError: It is no head, or wants another token.
    """
    try:
        from ray._private.grpc_utils import init_grpc_channel
    except ImportError:
        # Another Ray than is known here: it has to find out by itself.
        return
    channel: Any = init_grpc_channel(target, options=[("grpc.enable_http_proxy", 0)])
    with channel:
        channel.unary_unary(_METHOD)(b"", timeout=timeout_s)


def knock(host: str, port: int, *, place: str, way_home: str, ask: Ask = ask_head) -> None:
    """Return if the head of a cluster answers.

    Args:
        host: Name or address of its machine, as Ray would resolve it.
        port: Of the head's GCS.
        place: The address in sentences.
        way_home: How to do without a cluster, in sentences.
        ask: How it is asked; tests give their own.

    Raises:
        ClusterRefusesError: Something else answers, or the head wants another token.
        ClusterError: Nobody answered for a while.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    until_s = time.monotonic() + KNOCK_S
    while True:
        left_s = max(until_s - time.monotonic(), KNOCK_EVERY_S)
        try:
            socket.create_connection((host, port), timeout=left_s).close()
            ask(target, max(until_s - time.monotonic(), KNOCK_EVERY_S))
        except OSError as error:
            fault = not_reached(place, error, way_home=way_home)
        except Exception as error:  # gRPC's class, which is Ray's to import
            is_answer = hasattr(error, "code")
            fault = (_answered if is_answer else _not_asked)(place, error, way_home)
            if isinstance(fault, ClusterRefusesError) or not is_answer:
                raise fault from error
        else:
            return
        if time.monotonic() + KNOCK_EVERY_S > until_s:
            raise fault
        time.sleep(KNOCK_EVERY_S)


def _not_asked(place: str, error: Exception, way_home: str) -> ClusterError:
    """Return what kept Ray from asking at all: a token or a certificate that is not there."""
    words = one_line(str(error), max_characters=_MAX_WORDS)
    if "token" in words.lower():
        return ClusterRefusesError(
            f"there is no token here for the Ray cluster at {place} ({words}); set "
            "RAY_AUTH_TOKEN_PATH to a copy of the cluster's token file, or unset RAY_AUTH_MODE if "
            "it has none"
        )
    return not_reached(place, error, way_home=way_home)


def _answered(place: str, error: Any, way_home: str) -> ClusterError:
    """Return what an answer means that is not the one of a head."""
    status = error.code().name
    words = one_line(str(error.details()), max_characters=_MAX_WORDS)
    if status in _NO_TOKEN:
        return token_refused(place)
    if status == _NO_SUCH_METHOD or any(sign in words for sign in _OTHER_PROTOCOL):
        return ClusterRefusesError(
            f"what answers at {place} is not the head of a Ray cluster; write the port that "
            "`ray start --head` names, 6379 unless it was given another, send the job to a "
            f"dashboard with `clora submit JOB --address http://HOST:8265`, or {way_home}"
        )
    if status == "DEADLINE_EXCEEDED":
        return ClusterError(
            f"something listens at {place} and did not answer for {KNOCK_S:.0f} s; look whether "
            f"the cluster's head is alive, correct the address, or {way_home}"
        )
    return ClusterError(
        f"no Ray cluster answers at {place} ({words}); start one with `ray start --head`, correct "
        f"the address, or {way_home}"
    )
