"""A folder that is made by the first write and missed if it is gone at a later one.

A user may move an output away while a run writes it, and a share may be unmounted. A write that
made the folder again would begin a second output, with the rest of the rows.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pipelines.storage.disk_errors import disk_sentences
from pipelines.storage.error import StorageError


class KeptFolder:
    """A folder, and whether it must be there.

    Args:
        path: The folder.
        needed: It, or a folder above, if that is known to be there.
    """

    def __init__(self, path: Path, needed: Path | None) -> None:
        self.path = path
        self.needed = needed

    def seen(self) -> None:
        """Note that it is there."""
        self.needed = self.path

    @contextmanager
    def writing(self, target: Path) -> Generator[None]:
        """Raise what goes wrong with a write to ``target`` in it as a sentence.

        Raises:
            PlaceError: The same write is refused again.
            StorageError: It may be possible later, or the folder is gone.
        """
        self._check()
        try:
            with disk_sentences(str(target), "written"):
                yield
        except StorageError:
            # That it is gone explains it better.
            self._check()
            raise
        self.seen()

    def _check(self) -> None:
        if self.needed is None:
            return
        try:
            self.needed.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise StorageError(
                f"{self.needed} is gone: it was moved or deleted while it was in use, or its disk "
                "is away; put it back, and run the same command again"
            ) from None
        except OSError:
            return  # the write says what it is
