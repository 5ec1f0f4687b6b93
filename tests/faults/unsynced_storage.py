"""A storage on a disk that forgets to sync: the fault that cutting the power must find."""

import os
from pathlib import Path

from pipelines.storage.local import LocalStorage


class UnsyncedStorage(LocalStorage):
    """In every process that has it, ``os.fsync`` does nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        os.fsync = _do_nothing

    def __reduce__(self) -> tuple[type["UnsyncedStorage"], tuple[Path]]:
        return (UnsyncedStorage, (self._root,))


def _do_nothing(_handle: int) -> None:
    """Say that it is synced."""
