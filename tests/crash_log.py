"""Every change below a folder as a log, taken between the code and ``os``.

So it has what any code does and not what a class says that it does. ``crash_disk`` works out what a
power cut leaves after each entry.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from crash_disk import Disk, Entry, files_below

__all__ = ["Recorder", "recorded"]

_ON_HANDLES = ("write", "fsync", "fdatasync", "close")
_ON_NAMES = ("link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir")
_SAME = {"replace": "rename", "remove": "unlink", "fdatasync": "fsync"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_AUDITED = (
    "os.rename",
    "os.remove",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
)


class Recorder:
    """Writes the log of one folder; see ``recorded``.

    Attributes:
        start: What the folder held before.
        log: What was done since, in order.
    """

    def __init__(self, root: Path) -> None:
        self.start = files_below(root)
        self.log: list[Entry] = []
        self._root = root
        self._strays: list[str] = []
        self._handles: dict[int, int] = {}
        self._num_handles = 0
        self._lock = threading.RLock()
        self._inside = threading.local()

    def note(self, value: Any) -> None:
        """Write down what somebody learned now, so that it must hold from now on."""
        self.log.append(Entry("note", value=value))

    def open(self, real: Callable[..., int]) -> Callable[..., int]:
        """Return what stands in for ``os.open``."""

        def opened(place: Any, flags: int, *rest: Any, **options: Any) -> int:
            name = self._name(place)
            is_new = flags & (_WRITES | os.O_EXCL) == _NEW
            if name is None or options or (flags & _WRITES and not is_new):
                number = real(place, flags, *rest, **options)
                self._handles.pop(number, None)
                return number
            with self._lock, self._seen():
                number = real(place, flags, *rest)
                self._num_handles += 1
                self._handles[number] = self._num_handles
                call = "create" if is_new else "open"
                self.log.append(Entry(call, (name,), self._num_handles))
                return number

        return opened

    def on_handles(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands in for a function of ``os`` that takes an open file."""

        def called(number: Any, *rest: Any) -> Any:
            handle = self._handles.get(number)
            if handle is None:
                return real(number, *rest)
            if call == "close":
                del self._handles[number]
                return real(number)
            with self._lock:
                # What is synced survives in the model, so the disk need not be kept waiting.
                num_bytes = real(number, *rest) if call == "write" else None
                content = bytes(rest[0][:num_bytes]) if call == "write" else None
                self.log.append(Entry(_SAME.get(call, call), handle=handle, value=content))
                return num_bytes

        return called

    def on_names(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands in for a function of ``os`` that changes names."""
        num_names = 2 if call in ("link", "rename", "replace") else 1

        def called(*places: Any, **options: Any) -> Any:
            names = [self._name(place) for place in places[:num_names]]
            if None in names or options:
                return real(*places, **options)
            with self._lock, self._seen():
                result = real(*places)
                self.log.append(Entry(_SAME.get(call, call), tuple(map(str, names))))
                return result

        return called

    def audit(self, event: str, places: tuple[Any, ...]) -> None:
        """Remember a change that did not come through the functions above."""
        if getattr(self._inside, "now", False):
            return
        names = [self._name(place) for place in places]
        self._strays += [f"{event} {name}" for name in names if name is not None]

    def check(self) -> None:
        """Fail if anything was changed that the log does not know."""
        assert not self._strays, f"changed past the log: {self._strays}"
        disk = Disk(self.start)
        for entry in self.log:
            disk.apply(entry)
        assert disk.files("now", "now") == files_below(self._root), "the log is not all"

    def _name(self, place: Any) -> str | None:
        """Return the name below the folder; None if it lies elsewhere."""
        if not isinstance(place, (str, bytes, os.PathLike)):
            return None
        path = Path(os.path.abspath(os.fsdecode(place)))  # noqa: PTH100 - follows no link
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else None

    @contextmanager
    def _seen(self) -> Iterator[None]:
        self._inside.now = True
        try:
            yield
        finally:
            self._inside.now = False


_AT_WORK: list[Recorder] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _AT_WORK:
        return
    if event == "open" and (arguments[2] or 0) & _WRITES:
        _AT_WORK[-1].audit(event, arguments[:1])
    elif event in _AUDITED:
        _AT_WORK[-1].audit(event, arguments[:2])


sys.addaudithook(_hook)


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Record what changes below ``root``, and fail if there is a change that cannot be recorded.

    Such as a file that is opened for writing by ``open`` rather than ``os.open``, or one that is
    written over in its place.
    """
    recorder = Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", recorder.open(os.open))
        for call in _ON_HANDLES:
            patch.setattr(os, call, recorder.on_handles(call, getattr(os, call)))
        for call in _ON_NAMES:
            patch.setattr(os, call, recorder.on_names(call, getattr(os, call)))
        _AT_WORK.append(recorder)
        try:
            yield recorder
        finally:
            _AT_WORK.remove(recorder)
    recorder.check()
