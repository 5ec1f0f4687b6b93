"""Whether a process that wrote its name down is certainly gone, as far as this machine can tell.

A process id alone says little: ids are used again and mean nothing on another machine or in another
container. With the machine's boot, the space that ids live in and the moment the process started,
the same words mean the same process.
"""

import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SPACE = Path("/proc/self/ns/pid")


def this_process() -> str:
    """Return words for this process; empty where the system does not tell (no ``/proc``)."""
    place = _place()
    started = _started(os.getpid())
    return "" if place is None or started is None else f"{place} {os.getpid()} {started}"


def is_gone(identity: str) -> bool:
    """Return True only if the process of ``identity`` ran here and runs no more."""
    return _runs(identity) is False


def is_running(identity: str) -> bool:
    """Return True only if the process of ``identity`` runs here."""
    return _runs(identity) is True


def _runs(identity: str) -> bool | None:
    """Return whether a process runs; None if it is not of this place, or these are no words."""
    place, _, rest = identity.partition(" ")
    pid, _, started = rest.partition(" ")
    if not started or not pid.isdecimal() or place != _place():
        return None
    return _started(int(pid)) == started


def _place() -> str | None:
    try:
        return f"{_BOOT.read_text().strip()}/{_SPACE.readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Return when the process started, in ticks since the boot; None if there is none any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name may hold anything, so count from its closing bracket.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]
