"""A file system of its own whose power can be cut, and a driver that dies with it."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["KINDS", "PowerDisk", "end_all", "power_disk", "unavailable"]

KINDS = ("ext4", "xfs")

_MIB = 1024**2
_SIZE = 300 * _MIB
_MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}

_FS_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
"""Nothing more is written: neither data nor what the journal holds in memory."""


class PowerDisk:
    """A file system in a file, mounted on a folder.

    Args:
        kind: One of ``KINDS``.
        folder: On another disk; gets the file and the folder that it is mounted on.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.place = folder / "mounted"
        self._image = folder / "image"
        self._kept = folder / "image.kept"
        self.place.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run([*_MAKE[kind], str(self._image)], check=True, capture_output=True)

    def mount(self) -> None:
        """Mount it; the file system reads its journal, as after a boot."""
        _run(["mount", "-o", "loop", str(self._image), str(self.place)])

    def unmount(self) -> None:
        """Unmount it once the last process has let go of its files."""
        _run(["umount", str(self.place)])

    def cut(self) -> None:
        """Take the power away: from now on nothing reaches the disk, and no call succeeds."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def keep(self) -> None:
        """Remember what is on it; not while it is mounted."""
        _copy(self._image, self._kept)

    def restore(self) -> None:
        """Put back what was there at ``keep``; not while it is mounted."""
        _copy(self._kept, self._image)


@contextmanager
def power_disk(kind: str, folder: Path) -> Iterator[PowerDisk]:
    """Yield an unmounted file system, and leave nothing mounted."""
    disk = PowerDisk(kind, folder)
    try:
        yield disk
    finally:
        while disk.place.is_mount():
            subprocess.run(["umount", "--lazy", str(disk.place)], check=True)


def unavailable(kind: str, folder: Path) -> str | None:
    """Return why there can be no such file system here; None if there can."""
    if os.geteuid() != 0:
        return "only root may mount"
    if shutil.which(_MAKE[kind][0]) is None:
        return f"there is no {_MAKE[kind][0]}"
    try:
        with power_disk(kind, folder) as disk:
            disk.mount()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{kind} cannot be mounted here ({error})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def end_all(driver: subprocess.Popen[str]) -> None:
    """End a driver and all that it started, as a power cut does."""
    family: set[psutil.Process] = set()
    with _may_be_gone():
        family.add(psutil.Process(driver.pid))
    # Stopped before they are killed, so that none starts another meanwhile.
    stopped: set[psutil.Process] = set()
    while family - stopped:
        for process in family - stopped:
            with _may_be_gone():
                process.suspend()
        stopped |= family
        for process in stopped:
            with _may_be_gone():
                family.update(process.children())
    for process in family:
        with _may_be_gone():
            process.kill()
    psutil.wait_procs(family, timeout=10.0)
    driver.communicate()


@contextmanager
def _may_be_gone() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)


def _run(command: list[str], *, patience_s: float = 10.0) -> None:
    """Run a command that may fail while a process that was killed is still ending."""
    deadline = time.monotonic() + patience_s
    while True:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise subprocess.SubprocessError(f"{' '.join(command)}: {done.stderr.strip()}")
        time.sleep(0.05)
