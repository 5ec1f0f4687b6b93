"""Files and names that survive a power cut, as the system calls that make them.

The content is written under a hidden name and synced, then gets its own name, then the folder that
holds the name is synced. All of it goes through ``os``, where the tests record it.
"""

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipelines.storage.error import PlaceError

UNFINISHED = ".writing-"
"""How the name of a write begins until it is done."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""Answers of file systems that know no sync of a folder, or have nothing to sync."""

_MOST_TRIES = 100
"""Of making a folder that others remove whenever it is empty."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def create_file(target: Path, content: bytes) -> bool:
    """Create a file with its content synced; return whether its name was free.

    Raises:
        PlaceError: The file system has no hard links, which make the name and claim it in one step.
    """
    hidden = write_hidden(target, [content])
    try:
        sync_file(hidden)
        os.link(hidden, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise PlaceError(
                f"{target} cannot be committed: its file system has no hard links "
                f"({error.strerror}); name an output on another disk, or in a bucket"
            ) from error
        raise
    finally:
        remove_files([hidden])
    return True


def write_hidden(target: Path, parts: Iterable[bytes]) -> Path:
    """Write the parts beside ``target`` under a hidden name; return it. Nothing is synced."""
    hidden = target.with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{target.name}")
    handle = open_new(hidden)
    is_written = False
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(handle, rest) :]
        is_written = True
    finally:
        os.close(handle)
        if not is_written:
            remove_files([hidden])
    return hidden


def open_new(path: Path, *, syncs_folder: bool = True) -> int:
    """Open a new file for writing, in a folder that may have to be made, see ``make_folder``."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for _ in range(_MOST_TRIES):
        make_folder(path.parent, syncs=syncs_folder)
        with suppress(FileNotFoundError):
            return os.open(path, flags, 0o666)
    return os.open(path, flags, 0o666)


def make_folder(folder: Path, *, syncs: bool = True) -> None:
    """Make a folder and what is missing above it; a new name is synced at once.

    Args:
        folder: The folder.
        syncs: False leaves its own name unsynced: for a folder that nothing durable is in.

    Raises:
        NotADirectoryError: Its name, or one above, is that of a file or of a broken link.
        FileNotFoundError: Its file system lets no folder be made there.
    """
    for _ in range(_MOST_TRIES):
        if folder.is_dir():
            return
        make_folder(folder.parent)
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir()
            if syncs:
                sync_folder(folder.parent)
            return
    reason = errno.ENOTDIR if os.path.lexists(folder) else errno.ENOENT
    raise OSError(reason, os.strerror(reason), str(folder))


def sync_file(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut."""
    # Opened again: the files of a unit may be more than a process may hold open.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where its file system knows of that."""
    try:
        sync_file(folder)
    except OSError as error:
        # A folder above that may not be read was not made by us.
        if error.errno not in (*_NO_SYNC, errno.EACCES):
            raise


def remove_files(paths: Iterable[Path]) -> None:
    """Remove what can be removed of ``paths``."""
    for path in paths:
        with suppress(OSError):
            path.unlink()
