"""A run's output on a disk; ``storage`` says what its methods promise.

How a write survives a power cut: the content is written under a hidden name and synced, then gets
its own name, then the folder that holds the name is synced, and the folders above it. Several files
are first all written and then all synced, because the file system then has to empty its journal
once and not once a file. All of it goes through ``os``, where the tests record it.
"""

import errno
import os
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipelines.disk_errors import disk_sentences
from pipelines.storage_error import PlaceError

__all__ = ["UNFINISHED", "LocalStorage"]

UNFINISHED = ".writing-"
"""How the name of a write begins until it is done."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""Answers of file systems that know no sync of a folder, or have nothing to sync."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
        self.put_all({name: content})

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write several files as ``put`` does, which costs less together than one by one."""
        if not files:
            return
        targets = {name: self._path(name) for name in files}
        hidden: dict[str, Path] = {}
        try:
            for name, target in targets.items():
                with disk_sentences(str(target), "written"):
                    hidden[name] = _write_hidden(target, files[name])
            for name, path in hidden.items():
                with disk_sentences(str(targets[name]), "written"):
                    _sync(path)
            for name, target in targets.items():
                with disk_sentences(str(target), "written"):
                    hidden[name].replace(target)
                    del hidden[name]
            self._sync_folders(target.parent for target in targets.values())
        finally:
            _remove(hidden.values())

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was ours."""
        target = self._path(name)
        with disk_sentences(str(target), "written"):
            is_ours = not target.exists() and _create(target, content)
            self._sync_folders([target.parent])
            return is_ours

    def mark(self, name: str) -> None:
        """Leave an empty file whose name is its content; a power cut may take it away."""
        target = self._path(name)
        with disk_sentences(str(target), "written"):
            os.close(_open_new(target))

    def move(self, name: str, target: str) -> None:
        """Give a file another name; FileNotFoundError if there is none."""
        source, goal = self._path(name), self._path(target)
        with disk_sentences(str(source), "read"):
            source.lstat()
        with disk_sentences(str(goal), "written"):
            _make_folder(goal.parent)
            source.rename(goal)
            self._sync_folders([goal.parent, source.parent])

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        path = self._path(name)
        with disk_sentences(str(path), "read"):
            return path.read_bytes()

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        path = self._path(name)
        with disk_sentences(str(path), "read"):
            return path.is_file()

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading at any position; FileNotFoundError if there is none."""
        return _opened(self._path(name))

    def list(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the finished files directly in ``folder``; none is fine."""
        try:
            with (
                disk_sentences(str(self._root / folder), "read"),
                os.scandir(self._root / folder) as entries,
            ):
                names = [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []
        return sorted(
            f"{folder}/{name}"
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        )

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below ``folder``, unfinished ones too, in no order."""
        for name, _ in self._entries(folder):
            yield name

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of all finished files below ``folder``, in no order."""
        for name, entry in self._entries(folder):
            if not entry.name.startswith("."):
                # Another process may remove a file between the two calls.
                with suppress(FileNotFoundError), disk_sentences(entry.path, "read"):
                    yield name, entry.stat().st_size

    def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield (name, entry) of all files below ``folder``; a folder that goes meanwhile is fine.

        Texts and not paths: an output may have millions of files.
        """
        try:
            with (
                disk_sentences(str(self._root / folder), "read"),
                os.scandir(self._root / folder) as found,
            ):
                entries = list(found)
        except FileNotFoundError:
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._entries(name)
            else:
                yield name, entry

    def delete(self, name: str) -> None:
        """Remove a file, and its folder if that is empty then; one that is not there is fine."""
        path = self._path(name)
        with disk_sentences(str(path), "written"):
            path.unlink(missing_ok=True)
        # A writer that is about to use the folder makes it again.
        with suppress(OSError):
            path.parent.rmdir()

    def settle(self, folder: str) -> None:
        """Make what is directly in ``folder`` survive a power cut, whoever wrote it."""
        path = self._root / folder
        with disk_sentences(str(path), "read"):
            if path.is_dir():
                self._sync_folders([path])

    def check_writable(self) -> None:
        """Try everything that a run does when it writes, and leave nothing of it."""
        added: list[Path] = []
        probe = self._root / f"{UNFINISHED}{secrets.token_hex(8)}-probe"
        with disk_sentences(self.uri, "written"):
            missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
            try:
                for path in reversed(missing):
                    path.mkdir()
                    added.append(path)
                _create(probe, b"probe")
            finally:
                with suppress(OSError):
                    probe.unlink()
                for path in reversed(added):
                    with suppress(OSError):  # somebody uses it by now
                        path.rmdir()

    def _path(self, name: str) -> Path:
        """Return the path of a name; FileNotFoundError if it leads out of the folder.

        Names are made of keys and ids, which are read from files that anyone may have written.
        """
        if ".." in name.split("/") or name.startswith("/"):
            raise FileNotFoundError(
                f"{name!r} is no file of {self.uri}: it leads out of the folder"
            )
        return self._root / name

    def _sync_folders(self, folders: Iterable[Path]) -> None:
        """Make the names in ``folders`` survive a power cut, and the names of the folders.

        Those above are synced whoever made them: another process may not have come to it yet.
        """
        chain: dict[Path, None] = {}
        for folder in folders:
            above = folder
            while above != self._root and self._root in above.parents:
                chain[above] = None
                above = above.parent
        for folder in (*chain, self._root, self._root.parent):
            with disk_sentences(str(folder), "written"):
                _sync_folder(folder)


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    with disk_sentences(str(path), "read"), path.open("rb") as file:
        yield file


def _create(target: Path, content: bytes) -> bool:
    """Create a file with its content synced; return whether its name was free."""
    hidden = _write_hidden(target, content)
    try:
        _sync(hidden)
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
        _remove([hidden])
    return True


def _write_hidden(target: Path, content: bytes) -> Path:
    """Write the content beside ``target`` under a hidden name; return it. Nothing is synced."""
    hidden = target.with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{target.name}")
    handle = _open_new(hidden)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
    except OSError:
        _remove([hidden])
        raise
    finally:
        os.close(handle)
    return hidden


def _open_new(path: Path) -> int:
    """Open a new file for writing, in a folder that may have to be made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    _make_folder(path.parent)
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        # Somebody removed the folder because it was empty.
        _make_folder(path.parent)
        return os.open(path, flags, 0o666)


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it; a new name is synced at once."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        _sync_folder(folder.parent)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _sync(path: Path) -> None:
    # Opened again: the files of a unit may be more than a process may hold open.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        # A folder above that may not be read was not made by us.
        if error.errno not in (*_NO_SYNC, errno.EACCES):
            raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
