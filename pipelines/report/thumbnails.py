"""Small pictures for the report, one image in memory at a time and thread.

A thumbnail is named by its row's key, so those that an earlier report made are kept. Small images
stay as they are, without loss; large ones are made smaller.
"""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from pipelines.storage import Storage
from pipelines.store import image_name

__all__ = ["THUMBS_FOLDER", "make_thumbnail", "thumbnail_id", "write_thumbnails"]

THUMBS_FOLDER = "report/thumbs"
SIDE_PX = 256
QUALITY = 82

_ID_DIGITS = 16
_NUM_WRITERS = 4


def thumbnail_id(key: str) -> str:
    """Return the part of a row's key that names its thumbnail."""
    return key[:_ID_DIGITS]


def write_thumbnails(storage: Storage, keys: Iterable[str]) -> int:
    """Write the thumbnails that are missing; return how many."""
    present = set(storage.list(THUMBS_FOLDER, ".webp"))
    missing = [key for key in keys if _name(key) not in present]

    def write(key: str) -> None:
        storage.put(_name(key), make_thumbnail(storage.read(image_name(key))))

    with ThreadPoolExecutor(_NUM_WRITERS) as pool:
        for _ in pool.map(write, missing):
            pass
    return len(missing)


def make_thumbnail(png: bytes) -> bytes:
    """Return a WebP of the image, at most ``SIDE_PX`` a side."""
    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    is_small = max(image.size) <= SIDE_PX
    if not is_small:
        image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "WEBP", lossless=is_small, quality=QUALITY, method=2)
    return sink.getvalue()


def _name(key: str) -> str:
    return f"{THUMBS_FOLDER}/{thumbnail_id(key)}.webp"
