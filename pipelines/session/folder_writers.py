"""Which processes still write below a folder, and their end.

Ray's processes notice within seconds that their driver was killed, except its agents, which wait
for a minute and listen to nothing meanwhile. All of them have logs of their session open.
"""

import os
import signal
import stat
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ASKED_S = 2.0
"""How long processes have to end by themselves; Ray's workers do within this time or a little."""

KILLED_S = 2.0
LOOK_EVERY_S = 0.05
_PROCESSES = Path("/proc")


def writers(folder: Path) -> list[int]:
    """Return which other processes of this user have a file below ``folder`` open to be written.

    Returns:
        Their ids; none where the system does not say (no ``/proc``).
    """
    root = f"{os.path.realpath(folder)}/"
    try:
        pids = [int(path.name) for path in _PROCESSES.iterdir() if path.name.isdecimal()]
    except OSError:
        return []
    return [pid for pid in pids if pid != os.getpid() and _writes_below(root, pid)]


def end_writers(folder: Path) -> bool:
    """Ask all writers of a folder that nobody owns any more to end, then kill them.

    Returns:
        Whether none is left.
    """
    return _end(folder, ((signal.SIGTERM, ASKED_S), (signal.SIGKILL, KILLED_S)))


def kill_writers(folder: Path) -> bool:
    """Kill all writers of a folder that holds nothing of value.

    Returns:
        Whether none is left.
    """
    return _end(folder, ((signal.SIGKILL, KILLED_S),))


def _end(folder: Path, ways: Iterable[tuple[signal.Signals, float]]) -> bool:
    for number, wait_s in ways:
        found = writers(folder)
        for pid in found:
            _send(number, pid, folder)
        until = time.monotonic() + wait_s
        while found and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
            found = writers(folder)
        if not found:
            return True
    return False


def _writes_below(root: str, pid: int) -> bool:
    folder = _PROCESSES / str(pid)
    try:
        if folder.stat().st_uid != os.getuid():
            return False
        with os.scandir(folder / "fd") as entries:
            return any(_is_written(Path(entry.path), root) for entry in entries)
    except OSError:
        # It has ended, or is not ours to look into.
        return False


def _is_written(descriptor: Path, root: str) -> bool:
    try:
        # The link may be written if the file was opened to be written.
        is_open_to_write = descriptor.lstat().st_mode & stat.S_IWUSR
        return bool(is_open_to_write) and str(descriptor.readlink()).startswith(root)
    except OSError:
        return False


def _send(number: signal.Signals, pid: int, folder: Path) -> None:
    """Send a signal to a process that still writes there, and to no other of the same id."""
    if sys.platform != "linux":
        return
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _writes_below(f"{os.path.realpath(folder)}/", pid):
            signal.pidfd_send_signal(process, number)
    except OSError:
        return
    finally:
        os.close(process)
