"""The folder of a private Ray cluster: short by name, closed to other users, with its owner's name.

Ray keeps sockets, logs and what does not fit its object store in a session folder that everybody
may read, and write to, so this one stands around it. The address of a socket is a path of at most
107 bytes, of which Ray needs most, so a long ``TMPDIR``, as schedulers set it, is passed over.
"""

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipelines.process_identity import this_process
from pipelines.session.cluster_error import ClusterError, ClusterRefusesError

OWNER_NAME = "owner"
"""The file that says which process a folder belongs to, as ``process_identity`` words it."""

TOKEN_NAME = "token"  # noqa: S105 - a file
SAID_NAME = "said"

_RAY_NAME = "ray"
_LONGEST_SOCKET = f"/{_RAY_NAME}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
_RANDOM_CHARACTERS = 8
"""What ``mkdtemp`` adds to a prefix: lower-case letters, digits and underscores."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAMES = frozenset({OWNER_NAME, TOKEN_NAME, SAID_NAME, _RAY_NAME})


def possible_bases(environment: Mapping[str, str]) -> list[Path]:
    """Return where a private folder may be, the best place first."""
    named = [environment.get("RAY_TMPDIR"), environment.get("TMPDIR"), "/tmp", "/var/tmp"]  # noqa: S108 - what is made there is private
    return list(dict.fromkeys(Path(name).absolute() for name in named if name))


def folder_prefix() -> str:
    """Return how the names of this user's private folders begin."""
    return f"clora-{os.getuid()}-"


def is_private_folder(path: Path) -> bool:
    """Return whether a folder has a name that is made here and holds what is made here alone.

    Somebody may give a folder of their own a name that begins as these do.
    """
    pattern = rf"{folder_prefix()}[a-z0-9_]{{{_RANDOM_CHARACTERS}}}"
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError:
        return False
    return bool(re.fullmatch(pattern, path.name)) and bool(names) and names <= _NAMES


def ray_folder(folder: Path) -> Path:
    """Return where Ray has its session within a private folder; Ray opens it to everybody."""
    return folder / _RAY_NAME


def make_private_folder(
    bases: Iterable[Path], *, note: Callable[[str], None] = lambda _text: None
) -> Path:
    """Make a folder that only this user can enter, in the first of ``bases`` that will do.

    Where others may rename it (no sticky bit, as in a container's own ``/tmp``) it is made only if
    there is no better place.

    Args:
        bases: The best first.
        note: Called with a sentence if one was passed over.

    Raises:
        ClusterError: None will do, and one is full; the message says why for each.
        ClusterRefusesError: None will do, now or later.
    """
    ordered = sorted(bases, key=_may_be_renamed)
    refused: list[str] = []
    is_full = False
    for base in ordered:
        reason = _unsuitable(base)
        if reason is None:
            try:
                folder = _made(base)
            except OSError as error:
                reason = error.strerror or str(error)
                is_full = is_full or error.errno in _FULL
            else:
                if refused:
                    note(f"Ray's temporary files are in {folder} ({'; '.join(refused)})")
                return folder
        refused.append(f"{base}: {reason}")
    kind = ClusterError if is_full else ClusterRefusesError
    raise kind(
        f"no folder will do for a private Ray cluster ({'; '.join(refused)}); set TMPDIR to a "
        f"folder that you may write to, with a name of at most {_longest_base()} bytes"
    )


def remove_private_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; what cannot be removed stays for the next run."""
    shutil.rmtree(folder, ignore_errors=True)


def _made(base: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=base))
    try:
        (folder / OWNER_NAME).write_text(this_process())
    except OSError:
        remove_private_folder(folder)
        raise
    return folder


def _unsuitable(base: Path) -> str | None:
    longest = _longest_base()
    if len(os.fsencode(base)) > longest:
        return f"longer than the {longest} bytes that Ray's sockets leave"
    try:
        base.stat()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _may_be_renamed(base: Path) -> bool:
    """Return whether everybody may rename what others have in a folder."""
    try:
        mode = base.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _longest_base() -> int:
    own = len(f"/{folder_prefix()}") + _RANDOM_CHARACTERS
    return _MAX_SOCKET_BYTES - own - len(_LONGEST_SOCKET)
