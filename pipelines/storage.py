"""Everything the engine writes and reads back, through one small door.

Two ways to write: ``put`` replaces (for content that is the same whoever writes it: images under
their key, views, summaries) and ``put_if_absent`` creates or loses (for commits: exactly one writer
wins, readers see the whole file or none). Names below are relative, with ``/``; names that begin
with a dot are unfinished writes and are never listed.
"""

import os
import secrets
from pathlib import Path
from typing import Protocol

from pyarrow import fs

__all__ = ["LocalStorage", "Storage", "StorageError", "open_storage"]


class StorageError(Exception):
    """A place cannot be written or read; the message names it and the way out."""


class Storage(Protocol):
    """A folder for a run's output, on whatever holds it."""

    uri: str

    def put(self, name: str, content: bytes) -> None:
        """Write a file, replacing what is there; readers see the old file or the new one."""
        ...

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file that survives a crash, unless there is one; return whether it was ours."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        ...

    def list(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the finished files directly in ``folder``; none is fine."""
        ...

    def arrow(self, name: str) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system and the path in it, for reading parts of large files."""
        ...


class LocalStorage:
    """A folder on a disk that all workers share.

    A commit is written under a hidden name, synced, and then linked to its own name: linking
    fails if the name is taken, so of two writers one wins and neither can tear the other's file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._filesystem = fs.LocalFileSystem()
        self.uri = str(root)

    def __reduce__(self) -> tuple[type["LocalStorage"], tuple[Path]]:
        """Travel to workers as the folder's name alone."""
        return (LocalStorage, (self._root,))

    def put(self, name: str, content: bytes) -> None:
        """Write a file, replacing what is there; readers see the old file or the new one."""
        hidden = self._write_hidden(name, content, durable=False)
        hidden.replace(self._root / name)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file that survives a crash, unless there is one; return whether it was ours."""
        target = self._root / name
        if target.exists():
            return False
        hidden = self._write_hidden(name, content, durable=True)
        try:
            os.link(hidden, target)
        except FileExistsError:
            return False
        finally:
            hidden.unlink()
        _sync_folder(target.parent)
        return True

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        return (self._root / name).read_bytes()

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self._root / name).is_file()

    def list(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the finished files directly in ``folder``; none is fine."""
        selector = fs.FileSelector(str(self._root / folder), allow_not_found=True)
        infos = self._filesystem.get_file_info(selector)
        names = [info.base_name for info in infos if info.is_file]
        return sorted(
            f"{folder}/{name}"
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        )

    def arrow(self, name: str) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system and the path in it, for reading parts of large files."""
        return self._filesystem, str(self._root / name)

    def _write_hidden(self, name: str, content: bytes, *, durable: bool) -> Path:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f".writing-{secrets.token_hex(8)}-{target.name}")
        try:
            with hidden.open("xb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            hidden.unlink(missing_ok=True)
            raise
        return hidden


def open_storage(uri: str) -> Storage:
    """Return the storage at ``uri``; nothing is created before the first write.

    Raises:
        StorageError: A kind of place that commits cannot be made atomic on yet.
    """
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    if "://" in uri:
        raise StorageError(
            f"output {uri!r} is not a local folder; name a folder on a disk that all machines share"
        )
    return LocalStorage(Path(uri).expanduser().absolute())


def _sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` survive a crash of the machine, not only of the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
