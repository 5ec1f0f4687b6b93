"""A private cluster as the system sees it: its sockets, its folder, and what a kill leaves."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import psutil
import pytest

from pipelines.session.folder_writers import writers

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at only

DRIVER = """
import sys
from pipelines.session.cluster_session import cluster_session, preparing_session
from pipelines.session.cluster_error import ClusterError

try:
    with preparing_session(None), cluster_session(None):
        import ray
        from ray import data

        @ray.remote(num_cpus=0)
        class Worker:
            def works(self):
                return True

        workers = [Worker.remote() for _ in range(2)]
        assert all(ray.get([worker.works.remote() for worker in workers]))
        held = ray.put(bytes(2**24))
        assert data.range(8).map(lambda row: row).count() == 8
        print("works", flush=True)
        sys.stdin.read()
except ClusterError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """An empty folder with a short name, in which the drivers make theirs."""
    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as name:
        yield Path(name)


def driver(base: Path, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env={**kept, "TMPDIR": str(base), **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_loopback(host: str) -> bool:
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def running(processes: list[psutil.Process]) -> dict[psutil.Process, tuple[str, list[str]]]:
    """Return name and listening addresses of the processes that have not ended meanwhile."""
    found = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            listening = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
            found[process] = (process.name(), listening)
    return found


@pytest.mark.ray
def test_a_private_cluster_is_closed_while_it_lives_and_gone_after_a_kill(
    base: Path, tmp_path: Path
):
    before = {path.name for path in SHARED_MEMORY.iterdir()}
    # A scheduler's folder, too long for sockets; the next one is taken.
    long = tmp_path / ("job" * 30)
    long.mkdir()
    with driver(base, RAY_TMPDIR=str(long)) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "works\n"
            processes = [psutil.Process(first.pid)]
            processes += processes[0].children(recursive=True)
            found = running(processes)
            names = " ".join(name for name, _ in found.values())
            assert "gcs_server" in names
            assert "raylet" in names
            assert names.count("ray::") >= 4  # two agents, two workers
            hosts = [host for _, listening in found.values() for host in listening]
            assert len(hosts) > len(found) / 2
            assert [host for host in hosts if not is_loopback(host)] == []
            (folder,) = base.iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.stat().st_uid == os.getuid()
            # The cleaner finds them, those among them that stay for a minute.
            stay = [p.pid for p, (name, _) in found.items() if name == "raylet" or "Agent" in name]
            assert len(stay) == 3
            assert set(stay) <= set(writers(folder))
        finally:
            first.send_signal(signal.SIGKILL)
    assert folder.is_dir()
    # It finds what is left, and fails itself at once, started early and once more: its own logs
    # stay until the one after it.
    with driver(base, RAY_gcs_server_port_wait_time_s="0") as second:
        _, said = second.communicate()
    assert second.returncode == 1
    assert "Ray could not be started on this machine" in said
    assert "Traceback" not in said
    (left,) = base.iterdir()
    assert f"{left}/ray/session_latest/logs" in said
    assert left != folder
    assert (left / "ray/session_latest/logs").is_dir()
    assert writers(folder) == writers(left) == []
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert {path.name for path in SHARED_MEMORY.iterdir()} <= before
