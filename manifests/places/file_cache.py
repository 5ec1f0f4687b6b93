"""Remote files on this machine: fetched once, named by their content, whole or not at all.

A LoRA in a bucket is needed as a local file on each machine that uses it. Copies are named by the
sha256 of their bytes and put in place by a rename, so that many processes may fetch at once and
none sees half a file. What a URI held last time is remembered by its size and time of change.
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyarrow import fs

from manifests.places.locations import LocationError, open_file, stat
from manifests.places.place_names import is_uri, split_options

CHUNK_BYTES = 8 * 1024**2
MAX_FILE_BYTES = 2 * 1024**3


def cache_folder() -> Path:
    """Return the folder for fetched files: ``$CLORA_CACHE``, else ``clora`` in the user's cache."""
    named = os.environ.get("CLORA_CACHE")
    if named:
        return Path(named)
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "clora"


def local_copy(
    uri: str,
    *,
    sha256: str | None = None,
    max_bytes: int = MAX_FILE_BYTES,
    cache: Path | None = None,
) -> Path:
    """Return a local path with the content of ``uri``; a local path is returned as it is.

    Args:
        uri: Absolute path or URI.
        sha256: The content's, if known: then a cached copy is used without asking the store.
        max_bytes: More than this is not fetched.
        cache: Where copies are kept; ``cache_folder()`` if None.

    Raises:
        LocationError: It cannot be read, or is too large.
    """
    if not is_uri(uri):
        return Path(uri)
    folder = (cache or cache_folder()) / "files"
    suffix = PurePosixPath(split_options(uri)[0]).suffix[:16]
    if sha256 is not None and (folder / f"{sha256}{suffix}").is_file():
        return folder / f"{sha256}{suffix}"
    info = stat(uri)
    if info.type == fs.FileType.NotFound:
        raise LocationError(f"{uri} does not exist; check the URI")
    if info.size is None or info.size > max_bytes:
        raise LocationError(
            f"{uri} has {info.size or 0:,} bytes; at most {max_bytes:,} are fetched"
        )
    seen = hashlib.sha256(f"{uri}\0{info.size}\0{info.mtime_ns}".encode()).hexdigest()
    note = folder / f"{seen}.json"
    copy = _remembered(note, folder, suffix, info.size)
    if copy is not None:
        return copy
    with _alone(note.with_suffix(".lock")):
        # Whoever waited here finds what the first one fetched.
        copy = _remembered(note, folder, suffix, info.size)
        if copy is None:
            copy = _fetch(uri, folder, suffix, info.size)
            _write_whole(note, json.dumps({"uri": uri, "sha256": copy.stem}).encode())
    return copy


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Keep other processes of this machine out; a process that dies lets the next one in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remembered(note: Path, folder: Path, suffix: str, num_bytes: int) -> Path | None:
    try:
        copy = folder / f"{json.loads(note.read_text())['sha256']}{suffix}"
        return copy if copy.stat().st_size == num_bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch(uri: str, folder: Path, suffix: str, num_bytes: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".fetching-")
    try:
        with os.fdopen(handle, "wb") as target, open_file(uri) as source:
            num_read = 0
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)
                digest.update(chunk)
                num_read += len(chunk)
            target.flush()
            os.fsync(target.fileno())
        if num_read != num_bytes:
            raise LocationError(
                f"{uri} broke off after {num_read:,} of {num_bytes:,} bytes; try again"
            )
        copy = folder / f"{digest.hexdigest()}{suffix}"
        Path(temporary).replace(copy)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return copy


def _write_whole(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(handle, "wb") as target:
        target.write(content)
    Path(temporary).replace(path)
