"""A Ray head on loopback, and a second node beside it, ended by the process that started them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from e2e.kit import REPOSITORY
from free_ports import free_ports

OBJECT_STORE_BYTES = 512 * 1024**2
READY_TIMEOUT_S = 180.0
_TRIES = 3
"""Ray gives up a node that needs more than half a minute, while its dashboard answers already."""
_QUICK_METRICS = {"RAY_metrics_report_interval_ms": "1000"}
"""Ray's own are up to ten seconds old, and short runs are over by then."""


@dataclass(frozen=True, kw_only=True)
class HeadNode:
    """Where a head listens, all on loopback."""

    dashboard: str
    gcs: str
    metrics: str


def packages(folder: Path) -> Path:
    """Copy what a cluster needs of the repository: a checkout may hold much else."""
    for name in ("clora_core", "manifests", "pipelines", "jobs", "emoji_world"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    return folder


@contextmanager
def head_node(environment: Mapping[str, str]) -> Iterator[HeadNode]:
    """Start a head of two processors."""
    ports = free_ports(6)
    flags = {
        "port": ports[0],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports[1],
        "dashboard-agent-listen-port": ports[2],
        "dashboard-agent-grpc-port": ports[3],
        "ray-client-server-port": ports[4],
        "metrics-export-port": ports[5],
        "num-cpus": 2,
    }
    with _node(["--head"], flags, environment):
        _wait_for_port(ports[1])
        yield HeadNode(
            dashboard=f"http://127.0.0.1:{ports[1]}",
            gcs=f"127.0.0.1:{ports[0]}",
            metrics=f"127.0.0.1:{ports[5]}",
        )


@contextmanager
def second_node(head: HeadNode, environment: Mapping[str, str]) -> Iterator[str]:
    """Start another node of two processors; return its metrics address once it has joined."""
    ports = free_ports(3)
    flags = {
        "address": head.gcs,
        "dashboard-agent-listen-port": ports[0],
        "dashboard-agent-grpc-port": ports[1],
        "metrics-export-port": ports[2],
        "num-cpus": 2,
    }
    with _node([], flags, environment):
        _wait_for_port(ports[2])
        yield f"127.0.0.1:{ports[2]}"


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < end, f"nobody listens at port {port}"
            time.sleep(0.5)
        else:
            return


@contextmanager
def _node(
    kind: list[str], flags: Mapping[str, object], environment: Mapping[str, str]
) -> Iterator[None]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *kind, "--block"]
    common = {"node-ip-address": "127.0.0.1", "object-store-memory": OBJECT_STORE_BYTES}
    command += [f"--{name}={value}" for name, value in {**flags, **common}.items()]
    for tries_left in reversed(range(_TRIES)):
        # Ray's sockets have paths of at most 107 characters, so no folder of pytest's.
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        with (folder / "start.log").open("w") as log:
            node = subprocess.Popen(
                [*command, f"--temp-dir={folder}"],
                env={**environment, **_QUICK_METRICS},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if _has_started(node, folder / "start.log"):
                yield
                ended = f"a node ended before its tests did:\n{_last_words(folder)}"
                assert node.poll() is None, ended
                return
            assert tries_left, f"a node did not start:\n{_last_words(folder)}"
        finally:
            _end(node, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _has_started(node: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until Ray says that a node has started; return False if it ends instead."""
    end = time.monotonic() + READY_TIMEOUT_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if node.poll() is not None:
            return False
        assert time.monotonic() < end, f"a node does not start:\n{_last_words(log.parent)}"
        time.sleep(0.2)
    return True


def _last_words(folder: Path) -> str:
    """Return the ends of the logs that say why a node of Ray ended."""
    logs = folder / "session_latest" / "logs"
    names = ("ray_process_exit.log", "raylet.out", "gcs_server.out", "dashboard_agent.log")
    found = [
        log for log in (folder / "start.log", *(logs / name for name in names)) if log.exists()
    ]
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in found)


def _end(node: subprocess.Popen[bytes], folder: Path) -> None:
    """End a node and what it started: its children, and processes of its own folder."""
    try:
        family = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    node.send_signal(signal.SIGTERM)
    try:
        node.wait(3)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(folder) in " ".join(process.info["cmdline"] or ()):
            family.append(process)
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
