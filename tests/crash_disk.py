"""What a power cut may leave of a folder, by what POSIX promises and no more.

A file's bytes survive if the file was synced after they were written. A name survives if the folder
that holds it was synced after it was given, and so on up to the first folder. Real file systems
promise more, so a program that is safe here is safe there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "CrashState", "Disk", "Entry", "Files", "crash_states", "files_below"]

Files = Mapping[str, bytes | None]
"""What a folder holds by relative path; None is a folder."""

KINDS = {"strict": "durable", "names kept": "now", "removals lost": "lingering"}
"""What a cut may take, and which names that leaves; what was not synced of a file is always gone.

``strict``: everything that was not synced. ``names kept``: contents only, which leaves empty files,
as ext4 and XFS do. ``removals lost``: contents, and what was taken away or replaced is back.
"""


@dataclass(frozen=True)
class Entry:
    """One change, or a note of what somebody learned at this moment.

    Attributes:
        call: ``create``, ``open`` (a file or folder, to sync it), ``write``, ``fsync``, ``link``,
            ``rename``, ``unlink``, ``mkdir``, ``rmdir`` or ``note``.
        names: Relative to the folder.
        handle: Of an open file; no two have the same.
        value: Bytes that are written, or the note.
    """

    call: str
    names: tuple[str, ...] = ()
    handle: int = 0
    value: Any = None

    def __str__(self) -> str:
        return " ".join([self.call, *self.names])


@dataclass(frozen=True)
class CrashState:
    """What is on the disk after a cut.

    Attributes:
        kind: One of ``KINDS``.
        position: So many entries of the log were done; the last such place, if there are several.
        files: What is left.
    """

    kind: str
    position: int
    files: Files

    def write(self, folder: Path) -> None:
        """Write it into a new folder."""
        folder.mkdir()
        for name, content in self.files.items():
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)


def crash_states(
    start: Files, log: Sequence[Entry], *, is_unread: Callable[[str], bool]
) -> list[CrashState]:
    """Return what a cut after each entry of the log may leave, every different state once.

    What is known after the last of several places includes what is known after the others.

    Args:
        start: What the folder held before the log.
        log: What was done to it.
        is_unread: Says of a file's last name that nobody reads its content; it is left empty.
    """
    disk = Disk(start)
    found: dict[frozenset[tuple[str, bytes | None]], CrashState] = {}
    for position in range(len(log) + 1):
        if position:
            disk.apply(log[position - 1])
        for kind, names in KINDS.items():
            files = {
                name: b"" if content and is_unread(name.rpartition("/")[2]) else content
                for name, content in disk.files(names, "durable").items()
            }
            found[frozenset(files.items())] = CrashState(kind, position, files)
    return list(found.values())


def files_below(root: Path) -> Files:
    """Return what a folder on a real disk holds."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


@dataclass(eq=False)
class _File:
    now: bytes = b""
    durable: bytes = b""


@dataclass(eq=False)
class _Folder:
    """Names as programs see them, as they survive, and as they are if removals alone are lost."""

    now: "dict[str, _File | _Folder]" = field(default_factory=dict)
    durable: "dict[str, _File | _Folder]" = field(default_factory=dict)
    lingering: "dict[str, _File | _Folder]" = field(default_factory=dict)


class Disk:
    """A folder of which some has reached the disk; begins with all of ``start`` there."""

    def __init__(self, start: Files) -> None:
        self._root = _Folder()
        self._open: dict[int, _File | _Folder] = {}
        for name, content in sorted(start.items()):
            folder, last = self._at(name)
            node = _Folder() if content is None else _File(content, content)
            folder.now[last] = folder.durable[last] = folder.lingering[last] = node

    def apply(self, entry: Entry) -> None:
        """Do what an entry of the log says."""
        places = [self._at(name) for name in entry.names]
        folder, last = places[-1] if places else (self._root, "")
        if entry.call in ("create", "mkdir"):
            node = _File() if entry.call == "create" else _Folder()
            folder.now[last] = folder.lingering[last] = self._open[entry.handle] = node
        elif entry.call == "open":
            self._open[entry.handle] = folder.now[last] if last else folder
        elif entry.call == "write":
            self._open[entry.handle].now += entry.value
        elif entry.call == "fsync":
            node = self._open[entry.handle]
            if isinstance(node, _File):
                node.durable = node.now
            else:
                node.durable, node.lingering = dict(node.now), dict(node.now)
        elif entry.call == "link":
            source, name = places[0]
            folder.now[last] = folder.lingering[last] = source.now[name]
        elif entry.call == "rename":
            # Nothing of it lingers: if it is lost, the file has its old name and the new is free.
            source, name = places[0]
            folder.now[last] = source.now.pop(name)
        elif entry.call in ("unlink", "rmdir"):
            del folder.now[last]

    def files(self, names: str, contents: str) -> Files:
        """Return what is there by the ``names`` of folders and the ``contents`` of files."""
        found: dict[str, bytes | None] = {}

        def walk(folder: _Folder, above: str) -> None:
            for name, node in getattr(folder, names).items():
                if isinstance(node, _Folder):
                    found[above + name] = None
                    walk(node, f"{above}{name}/")
                else:
                    found[above + name] = getattr(node, contents)

        walk(self._root, "")
        return found

    def _at(self, name: str) -> tuple[_Folder, str]:
        """Return the folder that holds a name and its last part; for the folder itself, none."""
        *above, last = name.split("/")
        folder = self._root
        for part in above:
            folder = folder.now[part]
        return folder, "" if last == "." else last
