"""A loopback proxy in front of an S3 server that makes it fail in a chosen way, or be away.

Requests pass unchanged (their signature covers the host they were sent to, which is the proxy), so
client and server are real and only what is between them is broken.
"""

import http.client
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("error-500", "slow-down-503", "latency", "reset", "lost-answer", "truncated-body")
"""``reset`` drops a request unseen, ``lost-answer`` after the server has done it."""

OUTAGES = ("away", "hang", "reset", "lost-answer", "truncated-body", "error-500", "bad-gateway-502",
           "slow-down-503", "gateway-timeout-504", "too-many-429")  # fmt: skip
"""Faults that a store may have for a while. ``away`` refuses connections, ``hang`` says nothing."""

LATENCY_S = 0.5
_REPLIES = {
    "error-500": (500, "InternalError"),
    "bad-gateway-502": (502, ""),
    "slow-down-503": (503, "SlowDown"),
    "gateway-timeout-504": (504, ""),
    "too-many-429": (429, "TooManyRequests"),
    "conflict-409": (409, "ConditionalRequestConflict"),
    "no-bucket-404": (404, "NoSuchBucket"),
    "no-conditions-501": (501, "NotImplemented"),
    "expired": (403, "ExpiredToken"),
}


@dataclass
class FaultPlan:
    """Which requests fail and how.

    Attributes:
        fault: One of ``FAULTS``, ``OUTAGES`` or ``_REPLIES``; None lets everything pass.
        share: Of the requests that match, in 0..1, drawn with a seed.
        method: Only requests of this method, if given.
        path_part: Only requests with this in their path.
        most: Fail at most as many requests.
        outage_s: From the first request that matches, all fail, for as long; then none does.
    """

    fault: str | None = None
    share: float = 1.0
    method: str | None = None
    path_part: str = ""
    most: int | None = None
    outage_s: float | None = None
    num_failed: int = 0
    num_seen: int = 0
    seed: int = 0
    began_at_s: float | None = field(default=None, init=False)
    _random: random.Random = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, method: str, path: str) -> str | None:
        with self._lock:
            self.num_seen += 1
            fits = self.method in (None, method) and self.path_part in path
            is_over = self.most is not None and self.num_failed >= self.most
            if self.outage_s is not None:
                if self.began_at_s is None and fits:
                    self.began_at_s = time.monotonic()
                fits, is_over = self.began_at_s is not None, not self._lasts(self.outage_s)
            if self.fault is None or not fits or is_over or self._random.random() >= self.share:
                return None
            self.num_failed += 1
            return self.fault

    def _lasts(self, outage_s: float) -> bool:
        return self.began_at_s is not None and time.monotonic() - self.began_at_s < outage_s

    @property
    def is_away(self) -> bool:
        """Whether connections are refused now."""
        return self.fault == "away" and self.outage_s is not None and self._lasts(self.outage_s)


def outage(fault: str, *, seconds: float = math.inf, **changes: Any) -> FaultPlan:
    """Return the plan of a store that fails for some time, or for good, from some request on."""
    return FaultPlan(fault=fault, outage_s=seconds, **changes)


class FaultProxy:
    """A running proxy; ``plan`` may be changed at any time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.plan = FaultPlan()
        self.is_closing = False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def fault_proxy(server_port: int) -> Iterator[FaultProxy]:
    """Run a proxy for the server on ``server_port`` of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes, and the second would wait for an acknowledgement.
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.plan.draw(self.command, self.path)
            if fault in _REPLIES:
                status, code = _REPLIES[fault]
                self._answer(status, [], f"<Error><Code>{code}</Code></Error>".encode())
                return
            if fault in ("reset", "away"):
                self._reset()
                return
            if fault == "hang":
                while fault == proxy.plan.fault and not proxy.is_closing:
                    time.sleep(0.05)
                self._reset()
                return
            if fault == "latency":
                time.sleep(LATENCY_S)
            status, headers, content = self._ask(body)
            if fault == "lost-answer":
                self._reset()
                return
            is_cut = fault == "truncated-body"
            if is_cut and len(content) < 2:
                # Nothing of which a half could be sent.
                self._reset()
                return
            self._answer(status, headers, content, cut=is_cut)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815

        def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            server = http.client.HTTPConnection("127.0.0.1", server_port, timeout=30)
            try:
                server.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() != "expect":
                        server.putheader(name, value)
                server.endheaders(body or None)
                reply = server.getresponse()
                return reply.status, reply.getheaders(), reply.read()
            finally:
                server.close()

        def _answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
        ) -> None:
            self.send_response(status)
            given = {name.lower() for name, _ in headers}
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            if "content-length" not in given:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.wfile.flush()
                self._reset()

        def _reset(self) -> None:
            # Lingering for no time makes the close a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.connection.close()
            self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                return

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                return

    with socket.socket() as kept:
        # Bound and not listening: the port stays this proxy's, and connections are refused.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        proxy = FaultProxy(kept.getsockname()[1])
        is_up = threading.Event()
        thread = threading.Thread(target=_serve, args=(proxy, Handler, is_up), daemon=True)
        thread.start()
        is_up.wait()
        try:
            yield proxy
        finally:
            proxy.is_closing = True
            thread.join()


def _serve(
    proxy: FaultProxy, handler: type[BaseHTTPRequestHandler], is_up: threading.Event
) -> None:
    """Serve until the proxy closes, but not while it is away."""
    while not proxy.is_closing:
        if proxy.plan.is_away:
            time.sleep(0.01)
            continue
        with _Server(("127.0.0.1", proxy.port), handler) as server:
            server.timeout = 0.02
            is_up.set()
            while not (proxy.is_closing or proxy.plan.is_away):
                server.handle_request()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
