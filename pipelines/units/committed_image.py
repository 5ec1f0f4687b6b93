"""The image of a committed row, read so that damage is never passed on.

It is there twice: as a file that people look at, and as bytes in its unit's Parquet file. A row
knows the image's SHA-256. Whoever reads an image gets the one that was committed, from the file or,
if that is missing or another, from the unit; or an error that names both.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from manifests.places.place_names import joined
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import rows_name
from pipelines.units.output_files import MISSING, DamagedFileError, open_parquet

IMAGES_FOLDER = "images"

IMAGE_COLUMNS = ("key", "image_sha256", "unit_id")
"""What ``read_image`` asks of a row."""

_COPY_COLUMNS = ["key", "image", "image_sha256"]

Note = Callable[[str], None]


def image_name(key: str) -> str:
    """Return where the image of ``key`` lies: 256 folders keep each one short."""
    return f"{IMAGES_FOLDER}/{key[:2]}/{key}.png"


def read_image(storage: Storage, row: Mapping[str, Any], *, note: Note) -> bytes:
    """Return the PNG that was committed with a row.

    Args:
        storage: The output.
        row: ``IMAGE_COLUMNS`` of it.
        note: Gets a sentence if the file is damaged and the unit's copy is used.

    Raises:
        DamagedFileError: Neither the file nor the unit has it.
    """
    name, unit = image_name(row["key"]), rows_name(row["unit_id"])
    try:
        return checked_image(storage, name, row["image_sha256"])
    except DamagedFileError as error:
        damage = error
    try:
        content = dict(unit_images(storage, unit))[row["key"]]
    except (FileNotFoundError, KeyError):
        raise damage from None
    note(
        f"{joined(storage.uri, name)} {damage.reason}, so its copy in {unit} is used; "
        f"{damage.way_out}"
    )
    return content


def checked_image(storage: Storage, name: str, sha256: str) -> bytes:
    """Return the content of an image file; DamagedFileError if it has another SHA-256, or none."""
    try:
        content = storage.read(name)
    except FileNotFoundError:
        raise DamagedFileError(storage.uri, name, MISSING) from None
    if not content:
        raise DamagedFileError(storage.uri, name, "is empty")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedFileError(storage.uri, name, "is not the image that was committed")
    return content


def unit_images(storage: Storage, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (key, PNG) of a unit's rows, as they were committed.

    Raises:
        FileNotFoundError: There is no such unit.
        DamagedFileError: The unit is damaged.
    """
    with open_parquet(storage, name) as file:
        for group in range(file.num_row_groups):
            yield from committed_images(
                file.read_row_group(group, columns=_COPY_COLUMNS, use_threads=False)
            )


def committed_images(rows: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Yield (key, PNG) of rows of a unit; ValueError if one is not the image that was committed."""
    for row in rows.select(_COPY_COLUMNS).to_pylist():
        key, image = row["key"], row["image"]
        if hashlib.sha256(image["bytes"]).hexdigest() != row["image_sha256"]:
            raise ValueError(f"the image of key {key} has another SHA-256")
        if image["path"] != image_name(key):
            raise ValueError(f"the image of key {key} at {image['path']}")
        yield key, image["bytes"]


def say_restored(storage: Storage, names: Sequence[str], note: Note) -> None:
    """Say in a sentence which image files were written again, if any."""
    if names:
        note(
            f"{len(names):,} image file(s) of {storage.uri} were missing or of another size, "
            f"and were written again from their rows: {names[0]}"
            + (", ..." if len(names) > 1 else "")
        )


def restore_images_of(storage: Storage, unit: str, keys: Collection[str]) -> list[str]:
    """Write the image files of some rows of a unit again; return their names; errors as above."""
    if not keys:
        return []
    found = {image_name(key): content for key, content in unit_images(storage, unit) if key in keys}
    storage.put_all(found)
    return list(found)
