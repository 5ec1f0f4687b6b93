"""Folders of private clusters: where they are made, and which of them the next run removes."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.process_identity import this_process
from pipelines.session import folder_writers
from pipelines.session.abandoned_folders import UNCHANGED_S, remove_abandoned_folders
from pipelines.session.cluster_error import ClusterError
from pipelines.session.private_folder import (
    OWNER_NAME,
    folder_prefix,
    make_private_folder,
    possible_bases,
    ray_folder,
    remove_private_folder,
)

MAX_SOCKET_BYTES = 107
"""Of Linux; a socket's address has 108 bytes with the one that ends it."""

LIVES_UNTIL_ASKED = "import sys; print(flush=True); sys.stdin.read()"
WRITES_UNTIL_ENDED = """
import signal, sys, time
file = open(sys.argv[1], "a")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder whose name is as short as that of ``/tmp``, more or less."""
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        yield Path(name)


def dead_process() -> str:
    """Words for a process of this machine that has ended."""
    say = "from pipelines.process_identity import this_process; print(this_process())"
    done = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def left_behind(base: Path, owner: str | None, *, name: str = "leftleft") -> Path:
    folder = base / f"{folder_prefix()}{name}"
    logs = ray_folder(folder) / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("said")
    if owner is not None:
        (folder / OWNER_NAME).write_text(owner)
    return folder


def unchanged_since(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_folder_is_closed_to_others_and_says_whose_it_is(base: Path, umask: int):
    former = os.umask(umask)
    try:
        folder = make_private_folder([base])
    finally:
        os.umask(former)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()
    assert (folder / OWNER_NAME).read_text() == this_process()
    remove_private_folder(folder)
    assert list(base.iterdir()) == []


def test_the_longest_socket_of_ray_fits_at_every_base_that_is_used(base: Path):
    used = []
    for length in range(80):
        parent = base / ("x" * length) if length else base
        parent.mkdir(exist_ok=True)
        folder = make_private_folder([parent, base])
        session = "session_2026-12-31_23-59-59_999999_4194304"
        socket = ray_folder(folder) / session / "sockets" / "plasma_store"
        assert len(os.fsencode(socket)) <= MAX_SOCKET_BYTES
        used.append(folder.parent == parent)
    # Up to some length the first base is used, from there on the second.
    assert used == sorted(used, reverse=True)
    assert used[0]
    assert not used[-1]


def test_the_users_own_temporary_folder_comes_before_the_systems():
    system = possible_bases({"TMPDIR": ""})
    assert all(base.is_dir() for base in system)
    bases = possible_bases({"TMPDIR": "/scratch/me", "RAY_TMPDIR": "/ray"})
    assert bases == [Path("/ray"), Path("/scratch/me"), *system]


def test_a_base_where_nothing_can_be_made_is_passed_over_and_named_if_none_is_left(base: Path):
    (base / "file").write_text("")
    missing, file, long = base / "missing", base / "file", base / ("y" * 100)
    open_to_all = base / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    good = base / "good"
    good.mkdir()
    bad = [missing, file, long]
    assert make_private_folder([*bad, open_to_all, good]).parent == good
    assert make_private_folder([*bad, open_to_all]).parent == open_to_all
    with pytest.raises(ClusterError) as refused:
        make_private_folder(bad)
    for path in bad:
        assert f"{path}: " in str(refused.value)
    assert "set TMPDIR to a folder" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "files"),
    [("sdxl-run", ["rows/a.parquet"]), ("sdxlruns", ["rows/a.parquet"]), ("sdxlruns", [])],
)
def test_a_folder_of_the_user_s_own_is_never_removed(base: Path, name: str, files: list[str]):
    folder = base / f"{folder_prefix()}{name}"
    folder.mkdir()
    for file in files:
        (folder / file).parent.mkdir()
        (folder / file).write_text("mine")
    unchanged_since(folder, 10 * UNCHANGED_S)
    remove_abandoned_folders([base])
    assert folder.exists()
    assert all((folder / file).exists() for file in files)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_base_that_may_not_be_written_is_passed_over(base: Path):
    closed = base / "closed"
    closed.mkdir(mode=0o500)
    assert make_private_folder([closed, base]).parent == base


def test_what_a_dead_process_of_this_machine_left_is_removed(base: Path):
    left_behind(base, dead_process())
    remove_abandoned_folders([base, base])
    assert list(base.iterdir()) == []


def test_what_a_live_process_has_is_kept_however_old(base: Path):
    with subprocess.Popen(
        [sys.executable, "-c", LIVES_UNTIL_ASKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        place = this_process().split()[0]
        started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        folder = left_behind(base, f"{place} {process.pid} {started}")
        unchanged_since(folder, 10 * UNCHANGED_S)
        remove_abandoned_folders([base])
        assert folder.is_dir()
        process.communicate()
    remove_abandoned_folders([base])
    assert not folder.exists()


@pytest.mark.parametrize(
    "owner",
    [
        None,
        "",
        "torn",
        "\udcff\0",
        "another-boot/pid:[1] 4 5",
        f"{this_process().split()[0]} 17x 5",
    ],
)
def test_what_names_no_process_of_this_machine_is_kept_while_it_changes(
    base: Path, owner: str | None
):
    folder = left_behind(base, None)
    if owner is not None:
        (folder / OWNER_NAME).write_bytes(os.fsencode(owner))
    remove_abandoned_folders([base])
    unchanged_since(folder, 10 * UNCHANGED_S)
    (ray_folder(folder) / "logs" / "raylet.out").write_text("said again")
    remove_abandoned_folders([base])
    assert folder.is_dir()
    unchanged_since(folder, UNCHANGED_S + 60)
    remove_abandoned_folders([base])
    assert not folder.exists()


def test_links_files_and_other_names_are_kept(base: Path):
    dead = dead_process()
    elsewhere = left_behind(base, dead, name="target00").rename(base / "target")
    (base / f"{folder_prefix()}linklink").symlink_to(elsewhere)
    (base / f"{folder_prefix()}filefile").write_text(dead)
    other = left_behind(base, dead, name="xxxxxxxx").rename(base / "clora-notes")
    before = sorted(base.rglob("*"))
    remove_abandoned_folders([base, base / "missing"])
    assert sorted(base.rglob("*")) == before
    assert (other / OWNER_NAME).is_file()


def test_what_belongs_to_another_user_is_kept(base: Path, monkeypatch: pytest.MonkeyPatch):
    folder = left_behind(base, dead_process())
    own = os.getuid()
    stranger = base / folder.name.replace(f"-{own}-", f"-{own + 1}-")
    folder.rename(stranger)
    with monkeypatch.context() as patched:
        # Its name says that it is this user's, the file system says otherwise.
        patched.setattr(os, "getuid", lambda: own + 1)
        remove_abandoned_folders([base])
    assert stranger.is_dir()
    remove_abandoned_folders([base])
    assert stranger.is_dir()


def test_what_a_dead_run_left_running_is_ended_before_its_folder_goes(
    base: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(folder_writers, "ASKED_S", 0.2)
    folder = left_behind(base, dead_process())
    log = ray_folder(folder) / "logs" / "agent.log"
    command = [sys.executable, "-c", WRITES_UNTIL_ENDED, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_abandoned_folders([base])
        assert process.wait(timeout=10) < 0
    assert not folder.exists()


def test_somebody_who_only_reads_there_is_left_alone(base: Path):
    folder = left_behind(base, dead_process())
    log = ray_folder(folder) / "logs" / "raylet.out"
    command = [sys.executable, "-c", f"file = open({str(log)!r}); {LIVES_UNTIL_ASKED}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_abandoned_folders([base])
        assert process.poll() is None
        process.communicate()
        assert process.returncode == 0


def test_an_unknown_owners_folder_is_kept_while_somebody_writes_there(base: Path):
    folder = left_behind(base, None)
    log = ray_folder(folder) / "logs" / "agent.log"
    command = [sys.executable, "-c", WRITES_UNTIL_ENDED, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        unchanged_since(folder, 10 * UNCHANGED_S)
        remove_abandoned_folders([base])
        assert process.poll() is None
        assert folder.is_dir()
        process.kill()
