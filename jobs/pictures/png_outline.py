"""The outline of a PNG, read before a picture library is: its size, and how long its texts are.

A picture may come from a stranger. What would take long or much memory to open is refused here,
from the heads of the file's chunks alone; everything else is the library's to judge.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from manifests.rows.schema import MAX_SIDE_PX

MAX_FILE_BYTES = 128 * 1024**2
"""The largest picture takes 48 MiB before it is packed."""

MAX_TEXT_BYTES = 1024**2
"""Of one text, packed or not; the longest recipe that a manifest row can have takes less."""

MAX_CHUNKS = 100_000

_CHECKSUM_BYTES = 4  # after the content of each chunk
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def png_problem(path: Path) -> str | None:
    """Return why ``path`` is not opened as a PNG, as the end of a sentence; None if it may be.

    Raises:
        OSError: It cannot be read.
    """
    num_bytes = path.stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        return f"has {num_bytes:,} bytes; pictures of an output have at most {MAX_FILE_BYTES:,}"
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return "is no PNG; name one from an output's images/"
        kind = b""
        for number, (kind, start, length) in enumerate(_chunks(file)):
            if start + length + _CHECKSUM_BYTES > num_bytes:
                return "is truncated; copy or download it again"
            if number == MAX_CHUNKS:
                return f"has more than {MAX_CHUNKS:,} parts; no picture of an output has"
            problem = _chunk_problem(file, kind, length)
            if problem is not None:
                return problem
    return None if kind == b"IEND" else "is truncated; copy or download it again"


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, where its content begins, length) of every chunk; the file is at its content."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        start = file.tell()
        yield kind, start, length
        if kind == b"IEND":
            return
        file.seek(start + length + _CHECKSUM_BYTES)


def _chunk_problem(file: BinaryIO, kind: bytes, length: int) -> str | None:
    if kind == b"IHDR":
        if length < 8:
            return "has a header that is too short; it is damaged"
        width, height = struct.unpack(">II", file.read(8))
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
            return (
                f"is {width:,} x {height:,} px; pictures of an output have at most "
                f"{MAX_SIDE_PX:,} px a side"
            )
    if kind == b"acTL":
        return "is an animation; name a PNG from an output's images/"
    if kind in _TEXTS and length > MAX_TEXT_BYTES:
        return f"carries a text of {length:,} bytes; at most {MAX_TEXT_BYTES:,} are read"
    return None
