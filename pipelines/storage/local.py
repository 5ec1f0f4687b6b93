"""A run's output on a disk; ``storage`` says what its methods promise.

Several files are first all written and then all synced, because the file system then has to empty
its journal once and not once a file; ``durable_files`` has the steps.
"""

import os
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.disk_errors import disk_sentences
from pipelines.storage.durable_files import (
    UNFINISHED,
    create_file,
    make_folder,
    open_new,
    remove_files,
    sync_file,
    sync_folder,
    write_hidden,
)
from pipelines.storage.kept_folder import KeptFolder


class LocalStorage:
    """A folder on a disk that all workers share.

    A commit is written under a hidden name, synced, and then linked to its own name: linking
    fails if the name is taken, so of two writers one wins and neither can tear the other's file.

    The first write makes the folder. Once it was seen or written, here or in the process that this
    came from, it is not made again: it was moved away, and what is written now would begin another.

    Args:
        root: The folder.
        needed: A folder that must be there for a write, if there is one already.
    """

    def __init__(self, root: Path, needed: Path | None = None) -> None:
        self._root = root
        self._kept = KeptFolder(root, needed)
        self.uri = str(root)

    def __reduce__(self) -> tuple[type["LocalStorage"], tuple[Path, Path | None]]:
        """Travel to workers as the folder's name, and whether it is there."""
        return (LocalStorage, (self._root, self._kept.needed))

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
                with self._kept.writing(target):
                    hidden[name] = write_hidden(target, [files[name]])
            for name, path in hidden.items():
                with self._kept.writing(targets[name]):
                    sync_file(path)
            for name, target in targets.items():
                with self._kept.writing(target):
                    hidden[name].replace(target)
                    del hidden[name]
            self._sync_folders(target.parent for target in targets.values())
        finally:
            remove_files(hidden.values())

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file as ``put`` does, from parts that are taken one at a time."""
        target = self._path(name)
        with self._kept.writing(target):
            hidden = write_hidden(target, parts)
            try:
                sync_file(hidden)
                hidden.replace(target)
            finally:
                remove_files([hidden])
            self._sync_folders([target.parent])

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was ours."""
        target = self._path(name)
        with self._kept.writing(target):
            is_ours = not target.exists() and create_file(target, content)
            self._sync_folders([target.parent])
            return is_ours

    def mark(self, name: str) -> None:
        """Leave an empty file whose name is its content; a power cut may take it away."""
        target = self._path(name)
        with self._kept.writing(target):
            # Only marks are in its folder, which may go with them; what is above is to stay.
            make_folder(target.parent.parent)
            os.close(open_new(target, syncs_folder=False))

    def move(self, name: str, target: str) -> None:
        """Give a file another name; FileNotFoundError if there is none."""
        source, goal = self._path(name), self._path(target)
        with disk_sentences(str(source), "read"):
            source.lstat()
        with self._kept.writing(goal):
            make_folder(goal.parent)
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
                self._kept.seen()
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

    def versions(self, folder: str) -> Iterator[tuple[str, int, str]]:
        """Yield (name, bytes, version) of the finished files directly in ``folder``, in no order.

        The version is when content and inode were last changed, and which inode it is. Entries are
        taken one at a time: a folder may have a million.
        """
        try:
            with (
                disk_sentences(str(self._root / folder), "read"),
                os.scandir(self._root / folder) as entries,
            ):
                self._kept.seen()
                for entry in entries:
                    if entry.name.startswith(".") or not entry.is_file():
                        continue
                    # Another process may remove a file between the two calls.
                    with suppress(FileNotFoundError):
                        yield f"{folder}/{entry.name}", *_version(entry.stat())
        except FileNotFoundError:
            return

    def version(self, name: str) -> tuple[int, str]:
        """Return bytes and version of a file, as ``versions`` has them."""
        path = self._path(name)
        with disk_sentences(str(path), "read"):
            return _version(path.stat())

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
        if path.parent != self._root:
            with suppress(OSError):
                path.parent.rmdir()

    def settle(self, folder: str) -> None:
        """Make what is directly in ``folder`` survive a power cut, also what others wrote."""
        path = self._root / folder
        with disk_sentences(str(path), "read"):
            if self._root.is_dir():
                self._kept.seen()
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
                create_file(probe, b"probe")
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

        Those above are synced even if another process made them: it may not have come to that yet.
        """
        chain: dict[Path, None] = {}
        for folder in folders:
            above = folder
            while above != self._root and self._root in above.parents:
                chain[above] = None
                above = above.parent
        for folder in (*chain, self._root, self._root.parent):
            with disk_sentences(str(folder), "written"):
                sync_folder(folder)


def _version(found: os.stat_result) -> tuple[int, str]:
    return found.st_size, f"{found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    with disk_sentences(str(path), "read"), path.open("rb") as file:
        yield file
