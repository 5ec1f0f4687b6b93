"""Small pictures for the report, one image in memory at a time and thread.

A thumbnail is named by its row's key, so those that an earlier report made are kept. Small images
stay as they are, without loss; large ones are made smaller.
"""

import io
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages

THUMBS_FOLDER = "report/thumbs"
SIDE_PX = 256
QUALITY = 82

_ID_DIGITS = 16
_NUM_WRITERS = 4


def thumbnail_id(key: str) -> str:
    """Return the part of a row's key that names its thumbnail."""
    return key[:_ID_DIGITS]


def write_thumbnails(
    storage: Storage,
    rows: Iterable[Mapping[str, Any]],
    damages: Damages,
    *,
    suspects: Collection[str] = (),
) -> frozenset[str]:
    """Write the thumbnails that are missing or empty.

    Args:
        storage: The output.
        rows: ``committed_image.IMAGE_COLUMNS`` of the images.
        damages: Gets images that are damaged.
        suspects: Keys whose image is looked at in any case.

    Returns:
        Keys of rows whose image is lost.
    """
    present = {name for name, size in storage.sizes(THUMBS_FOLDER) if size}

    def write(row: Mapping[str, Any]) -> str | None:
        image = damages.image(storage, row)
        if image is None:
            return row["key"]
        storage.put(_name(row["key"]), make_thumbnail(image))
        return None

    missing = [row for row in rows if _name(row["key"]) not in present or row["key"] in suspects]
    with ThreadPoolExecutor(_NUM_WRITERS) as pool:
        return frozenset(key for key in pool.map(write, missing) if key is not None)


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
