"""Private folders whose run was killed before it could remove them: the next run does.

A folder is removed if the process that it names has ended on this machine. What names no process
that this machine can know (an owner in another container or before the last boot, a file that was
never written) is left for days, and then removed only if nothing changes in it any more.
"""

import os
import stat
import time
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from pipelines.process_identity import is_gone, is_running
from pipelines.session.folder_writers import end_writers, writers
from pipelines.session.private_folder import (
    OWNER_NAME,
    folder_prefix,
    is_private_folder,
    ray_folder,
    remove_private_folder,
)

UNCHANGED_S = 3 * 24 * 3600.0
"""A live cluster writes to its logs every few seconds."""

MAX_OWNER_BYTES = 4096


class Owner(Enum):
    """What this machine knows of the process that made a folder."""

    RUNS = "runs"
    GONE = "gone"
    UNKNOWN = "unknown"


def remove_abandoned_folders(bases: Iterable[Path]) -> None:
    """Remove what killed runs of this user left in ``bases``; end what is left of their clusters.

    Nothing is raised: what cannot be removed now stays, and several runs may do this at once.
    """
    for base in bases:
        for folder in _own_folders(base):
            owner = _owner(folder)
            unchanged_s = 0.0 if owner is not Owner.UNKNOWN else time.time() - _last_change(folder)
            if not is_abandoned(owner, unchanged_s=unchanged_s):
                continue
            session = ray_folder(folder)
            is_unused = end_writers(session) if owner is Owner.GONE else not writers(session)
            if is_unused:
                remove_private_folder(folder)


def is_abandoned(owner: Owner, *, unchanged_s: float) -> bool:
    """Return whether a folder may be removed, unless somebody uses it."""
    return owner is Owner.GONE or (owner is Owner.UNKNOWN and unchanged_s > UNCHANGED_S)


def _own_folders(base: Path) -> list[Path]:
    """Return what has the name of a private folder, and is one, and belongs to this user."""
    prefix = folder_prefix()
    try:
        named = [path for path in base.iterdir() if path.name.startswith(prefix)]
    except OSError:
        return []
    return [path for path in named if _is_own_folder(path) and is_private_folder(path)]


def _is_own_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _owner(folder: Path) -> Owner:
    try:
        with (folder / OWNER_NAME).open(errors="replace") as file:
            identity = file.read(MAX_OWNER_BYTES)
    except OSError:
        return Owner.UNKNOWN
    if is_gone(identity):
        return Owner.GONE
    return Owner.RUNS if is_running(identity) else Owner.UNKNOWN


def _last_change(folder: Path) -> float:
    """Return when anything in a folder last changed, as seconds since the epoch."""
    last = 0.0
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in names)):
            try:
                last = max(last, path.lstat().st_mtime)
            except OSError:
                continue
    return last
