"""Who answers at the address of a head: found out at once, or after a while that has an end."""

import http.server
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from pipelines.session import knock as knocks
from pipelines.session.cluster_error import ClusterError, ClusterRefusesError
from pipelines.session.knock import knock

METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocks, "KNOCK_S", 0.6)
    monkeypatch.setattr(knocks, "KNOCK_EVERY_S", 0.1)
    for name in ("RAY_AUTH_MODE", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def grpc_server(answer: Any) -> Iterator[int]:
    """Serve one method, as the head does; None serves no method at all."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            known = answer is not None and handler_call_details.method == METHOD
            return grpc.unary_unary_rpc_method_handler(answer) if known else None

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def at(port: int) -> None:
    knock("127.0.0.1", port, place=f"'HERE:{port}'", way_home="go home")


def test_a_head_is_known_by_its_answer():
    with grpc_server(lambda request, _context: request) as port:
        at(port)


def test_a_server_that_has_no_such_method_is_no_head_and_is_not_tried_again():
    with grpc_server(None) as port, pytest.raises(ClusterRefusesError) as refused:
        at(port)
    assert f"what answers at 'HERE:{port}' is not the head of a Ray cluster" in str(refused.value)
    assert "or go home" in str(refused.value)


def test_a_head_that_wants_a_token_says_so_at_once(monkeypatch: pytest.MonkeyPatch):
    def refuse(_request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

    with grpc_server(refuse) as port:
        with pytest.raises(ClusterRefusesError, match="none is sent from here"):
            at(port)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        with pytest.raises(ClusterRefusesError, match="refuses this machine's token"):
            at(port)


def test_a_web_server_is_no_head():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(
            ClusterRefusesError, match="clora submit JOB --address http://HOST:8265"
        ):
            at(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_somebody_who_listens_and_never_answers_is_waited_for_no_longer_than_that():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=f"something listens at 'HERE:{port}'") as refused:
            at(port)
    assert refused.value.exit_code == 1


def test_a_head_that_comes_while_it_is_knocked_at_is_found():
    asked: list[str] = []

    def ask(target: str, _timeout_s: float) -> None:
        asked.append(target)
        if len(asked) == 1:
            raise OSError("broken")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        knock("127.0.0.1", port, place="there", way_home="go home", ask=ask)
    assert asked == [f"127.0.0.1:{port}"] * 2


def test_a_host_without_a_name_is_said_with_the_system_s_reason():
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at there \(.*known") as refused:
        knock("nohost.invalid", 6379, place="there", way_home="go home")
    assert refused.value.exit_code == 1


def test_a_port_where_nobody_listens_is_refused_with_1():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="Connection refused") as refused:
            at(bound.getsockname()[1])
    assert refused.value.exit_code == 1


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ("Ray couldn't find an authentication token", "there is no token here .* find an auth", 2),
        ("no certificate", r"no Ray cluster answers at there \(no certificate\)", 1),
    ],
)
def test_what_keeps_ray_from_asking_is_said_at_once(words: str, said: str, code: int):
    num_asked = 0

    def ask(_target: str, _timeout_s: float) -> None:
        nonlocal num_asked
        num_asked += 1
        raise RuntimeError(words)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ClusterError, match=said) as refused:
            knock("127.0.0.1", port, place="there", way_home="go home", ask=ask)
    assert refused.value.exit_code == code
    assert num_asked == 1
