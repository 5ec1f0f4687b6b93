"""An object of a store as a file that is asked for what is read of it."""

import io
from collections.abc import Callable
from typing import Any


class ObjectFile(io.RawIOBase):
    """An object that can be read at any position.

    Args:
        num_bytes: Its size.
        part: Returns the content from a position on, of a length within the object, or its start.
    """

    def __init__(self, num_bytes: int, part: Callable[[int, int], Any]) -> None:
        self._num_bytes = num_bytes
        self._part = part
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there is content; return with how many bytes."""
        length = min(len(buffer), self._num_bytes - self._at)
        if length <= 0:
            return 0
        content = self._part(self._at, length)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def readall(self) -> bytes:
        """Return the rest; asked for at once and not in small parts."""
        return b"".join(iter(lambda: self.read(max(0, self._num_bytes - self._at)), b""))
