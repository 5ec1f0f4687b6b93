"""Local copies of model folders that lie in a store, each fetched once a machine.

Files come through ``file_cache``, by content, so two revisions of a model share what they have in
common. A folder is put together from links under the hash of its names and contents, and gets its
name by a rename: whoever sees it sees all of it.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from manifests.places.file_cache import cache_folder, local_copy
from manifests.places.locations import LocationError, expand
from manifests.places.place_names import is_uri, split_options

MAX_MODEL_FILE_BYTES = 64 * 1024**3
MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".bin", ".pt", ".spm")
"""Endings of the files that can change a pixel."""


def local_folder(place: str, *, cache: Path | None = None) -> Path:
    """Return a local folder with the model files below ``place``; a path is returned as it is.

    Args:
        place: Absolute path or URI of a folder.
        cache: Where copies are kept; ``file_cache.cache_folder()`` if None.

    Raises:
        LocationError: It cannot be read, holds no model file, or a file's name leads out of it.
    """
    if not is_uri(place):
        return Path(place)
    cache = cache or cache_folder()
    root = split_options(place)[0].rstrip("/")
    copies: dict[str, Path] = {}
    for file in expand(place, suffixes=MODEL_SUFFIXES):
        name = _inner_name(split_options(file)[0], root)
        copies[name] = local_copy(file, max_bytes=MAX_MODEL_FILE_BYTES, cache=cache)
    return linked_folder(copies, cache=cache)


def linked_folder(copies: Mapping[str, Path], *, cache: Path | None = None) -> Path:
    """Return a folder with links to ``copies``, by their names in it; the same for the same ones.

    Args:
        copies: From ``local_copy``, of things that lie in a store.
        cache: As in ``local_folder``.
    """
    cache = cache or cache_folder()
    digest = hashlib.sha256()
    for name, copy in sorted(copies.items()):
        digest.update(f"{name}\0{copy.name}\n".encode())
    folder = cache / "folders" / digest.hexdigest()
    if not folder.is_dir():
        _put_together(folder, copies)
    return folder


def _inner_name(file: str, root: str) -> str:
    """Return a file's name below ``root``; a key of a store may hold anything, ``..`` included."""
    name = file.removeprefix(f"{root}/")
    parts = PurePosixPath(name).parts
    if name == file or not parts or ".." in parts or PurePosixPath(name).is_absolute():
        raise LocationError(f"{file} has a name that leads out of {root}; rename it")
    return "/".join(parts)


def _put_together(folder: Path, copies: Mapping[str, Path]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        for name, copy in copies.items():
            target = building / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(copy, target)
        try:
            building.rename(folder)
        except OSError:
            # Another process was first; what it put together has the same name for a reason.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
