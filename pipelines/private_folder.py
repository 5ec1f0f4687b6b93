"""The folder of a private Ray cluster: short by name, closed to other users, with its owner's name.

Ray keeps sockets, logs and what does not fit its object store in a session folder that everybody
may read, and write to, so this one stands around it. The address of a socket is a path of at most
107 bytes, of which Ray needs most, so a long ``TMPDIR``, as schedulers set it, is passed over.
"""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.cluster_error import ClusterError
from pipelines.process_identity import this_process

__all__ = [
    "OWNER_NAME",
    "folder_prefix",
    "make_private_folder",
    "possible_bases",
    "ray_folder",
    "remove_private_folder",
]

OWNER_NAME = "owner"
"""The file that says which process a folder belongs to, as ``process_identity`` words it."""

_RAY_NAME = "ray"
_LONGEST_SOCKET = f"/{_RAY_NAME}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
_RANDOM_CHARACTERS = 8
"""What ``mkdtemp`` adds to a prefix."""


def possible_bases(environment: Mapping[str, str]) -> list[Path]:
    """Return where a private folder may be, the best place first."""
    named = [environment.get("RAY_TMPDIR"), environment.get("TMPDIR"), "/tmp", "/var/tmp"]  # noqa: S108 - what is made there is private
    return list(dict.fromkeys(Path(name).absolute() for name in named if name))


def folder_prefix() -> str:
    """Return how the names of this user's private folders begin."""
    return f"clora-{os.getuid()}-"


def ray_folder(folder: Path) -> Path:
    """Return where Ray has its session within a private folder; Ray opens it to everybody."""
    return folder / _RAY_NAME


def make_private_folder(bases: Iterable[Path]) -> Path:
    """Make a folder that only this user can enter, in the first of ``bases`` that will do.

    Raises:
        ClusterError: None will do; the message says why for each.
    """
    refused: list[str] = []
    for base in bases:
        reason = _unsuitable(base)
        if reason is None:
            try:
                return _made(base)
            except OSError as error:
                reason = error.strerror or str(error)
        refused.append(f"{base}: {reason}")
    raise ClusterError(
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
        mode = base.stat().st_mode
    except OSError as error:
        return error.strerror or str(error)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return "everybody may rename what others have there (no sticky bit)"
    return None


def _longest_base() -> int:
    own = len(f"/{folder_prefix()}") + _RANDOM_CHARACTERS
    return _MAX_SOCKET_BYTES - own - len(_LONGEST_SOCKET)
