"""A run's output on a disk; see ``storage`` for what its methods promise."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["UNFINISHED", "LocalStorage"]

UNFINISHED = ".writing-"
"""How the name of a write begins until it is done."""


class LocalStorage:
    """A folder on a disk that all workers share.

    A commit is written under a hidden name, synced, and then linked to its own name: linking
    fails if the name is taken, so of two writers one wins and neither can tear the other's file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def __reduce__(self) -> tuple[type["LocalStorage"], tuple[Path]]:
        """Travel to workers as the folder's name alone."""
        return (LocalStorage, (self._root,))

    def put(self, name: str, content: bytes) -> None:
        """Write a file, replacing what is there; readers see the old file or the new one."""
        hidden = self._write_hidden(name, content, durable=False)
        hidden.replace(self._path(name))

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file that survives a crash, unless there is one; return whether it was ours."""
        target = self._path(name)
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
        return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self._path(name).is_file()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading at any position; FileNotFoundError if there is none."""
        return self._path(name).open("rb")

    def list(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the finished files directly in ``folder``; none is fine."""
        try:
            with os.scandir(self._root / folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            f"{folder}/{name}"
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        )

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below ``folder``, unfinished ones too, in no order."""
        for place, _, names in os.walk(self._root / folder):
            for name in names:
                yield (Path(place) / name).relative_to(self._root).as_posix()

    def delete(self, name: str) -> None:
        """Remove a file, and its folder if that is empty then; one that is not there is fine."""
        path = self._path(name)
        path.unlink(missing_ok=True)
        # A writer that is about to use the folder makes it again.
        with suppress(OSError):
            path.parent.rmdir()

    def _path(self, name: str) -> Path:
        """Return the path of a name; FileNotFoundError if it leads out of the folder.

        Names are made of keys and ids, which are read from files that anyone may have written.
        """
        if ".." in name.split("/") or name.startswith("/"):
            raise FileNotFoundError(
                f"{name!r} is no file of {self.uri}: it leads out of the folder"
            )
        return self._root / name

    def _write_hidden(self, name: str, content: bytes, *, durable: bool) -> Path:
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = target.with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{target.name}")
        try:
            with self._create(hidden) as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            hidden.unlink(missing_ok=True)
            raise
        return hidden

    @staticmethod
    def _create(path: Path) -> BinaryIO:
        try:
            return path.open("xb")
        except FileNotFoundError:
            # Somebody removed the folder because it was empty.
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")


def _sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` survive a crash of the machine, not only of the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
