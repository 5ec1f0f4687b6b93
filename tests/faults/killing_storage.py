"""A storage that kills a process at a named point of a unit's way to its commit.

It wraps the real one and travels to workers like it, so the product needs no hooks for its tests.
"""

import errno
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.storage import Storage, open_storage

POINTS = {
    "after-claim": ("put_if_absent", "leases/", "after"),
    "after-plan": ("put", "plans/", "after"),
    "after-mark": ("mark", "attempts/", "after"),
    "after-image": ("put", "images/", "after"),
    "before-commit": ("put_if_absent", "rows/", "before"),
    "after-commit": ("put_if_absent", "rows/", "after"),
    "after-failures": ("put", "errors/", "after"),
    "before-card": ("put", "metrics.prom", "after"),
}
UNIT_POINTS = ("after-mark", "after-image", "before-commit", "after-commit", "after-failures")


@dataclass(frozen=True)
class Trap:
    """What happens where, once.

    Attributes:
        point: One of ``POINTS``.
        victim: ``self`` kills the process at the point, ``driver`` the driver (the process at the
            point goes on), ``disk`` finds the disk full.
        sprung: A file that is there from then on.
    """

    point: str
    victim: str
    sprung: Path


class KillingStorage:
    """Everything as in the storage at ``uri``, until the trap springs."""

    def __init__(self, uri: str, trap: Trap, driver_pid: int) -> None:
        self.uri = uri
        self._trap = trap
        self._driver_pid = driver_pid
        self._real: Storage = open_storage(uri)

    def __reduce__(self) -> tuple[type["KillingStorage"], tuple[str, Trap, int]]:
        return (KillingStorage, (self.uri, self._trap, self._driver_pid))

    def put(self, name: str, content: bytes) -> None:
        self._at("put", name, "before")
        self._real.put(name, content)
        self._at("put", name, "after")

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        self.put(name, b"".join(parts))

    def put_all(self, files: Mapping[str, bytes]) -> None:
        # One by one, so that there is a moment between two of them.
        for name, content in files.items():
            self.put(name, content)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        self._at("put_if_absent", name, "before")
        is_ours = self._real.put_if_absent(name, content)
        self._at("put_if_absent", name, "after")
        return is_ours

    def mark(self, name: str) -> None:
        self._real.mark(name)
        self._at("mark", name, "after")

    def move(self, name: str, target: str) -> None:
        self._real.move(name, target)

    def read(self, name: str) -> bytes:
        return self._real.read(name)

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        return self._real.open(name)

    def exists(self, name: str) -> bool:
        return self._real.exists(name)

    def list(self, folder: str, suffix: str) -> list[str]:
        return self._real.list(folder, suffix)

    def walk(self, folder: str) -> Iterator[str]:
        return self._real.walk(folder)

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        return self._real.sizes(folder)

    def versions(self, folder: str) -> Iterator[tuple[str, int, str]]:
        return self._real.versions(folder)

    def version(self, name: str) -> tuple[int, str]:
        return self._real.version(name)

    def delete(self, name: str) -> None:
        self._real.delete(name)

    def settle(self, folder: str) -> None:
        self._real.settle(folder)

    def check_writable(self) -> None:
        self._real.check_writable()

    def _at(self, call: str, name: str, when: str) -> None:
        wanted = POINTS[self._trap.point]
        if (call, when) != (wanted[0], wanted[2]) or not name.startswith(wanted[1]):
            return
        # A unit is committed first, so that there is something to lose; all may be begun by then.
        is_late = self._trap.point in UNIT_POINTS and self._trap.point != "after-mark"
        if is_late and not self._real.list("rows", ".parquet"):
            return
        try:
            self._trap.sprung.open("x").close()
        except FileExistsError:
            return
        if self._trap.victim == "disk":
            raise OSError(errno.ENOSPC, "No space left on device", name)
        pid = os.getpid() if self._trap.victim == "self" else self._driver_pid
        os.kill(pid, signal.SIGKILL)
