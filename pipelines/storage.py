"""Everything the engine writes and reads back, through one small door.

Two ways to write: ``put`` replaces (for content that is the same whoever writes it: images under
their key, views, summaries) and ``put_if_absent`` creates or loses (for commits: exactly one writer
wins, readers see the whole file or none). Names below are relative, with ``/``; names that begin
with a dot are unfinished writes and are never listed.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from pipelines.local_storage import LocalStorage

__all__ = ["LocalStorage", "Storage", "StorageError", "open_storage"]


class StorageError(Exception):
    """A place cannot be written or read; the message names it and the way out."""


class Storage(Protocol):
    """A folder for a run's output, on whatever holds it."""

    uri: str

    def put(self, name: str, content: bytes) -> None:
        """Write a file, replacing what is there; readers see the old file or the new one."""
        ...

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file that survives a crash, unless there is one; return whether it was ours."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content; FileNotFoundError if there is none."""
        ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading at any position; FileNotFoundError if there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        ...

    def list(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of the finished files directly in ``folder``; none is fine."""
        ...

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below ``folder``, unfinished ones too, in no order."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...


def open_storage(uri: str) -> Storage:
    """Return the storage at ``uri``; nothing is created before the first write.

    Args:
        uri: A folder's path, or ``s3://bucket/prefix`` or ``gs://bucket/prefix``. Credentials and
            an endpoint other than the provider's own come from the environment.

    Raises:
        StorageError: A kind of place that commits cannot be made atomic on.
    """
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    if "://" not in uri:
        return LocalStorage(Path(uri).expanduser().absolute())
    # Imported late: a local output needs no client of any store.
    from pipelines.object_storage import SCHEMES, ObjectStorage

    scheme, _, rest = uri.partition("://")
    if scheme not in SCHEMES:
        raise StorageError(
            f"output {uri!r} is in a store that is not known; name a folder on a disk that all "
            "machines share, s3://bucket/prefix or gs://bucket/prefix"
        )
    if "@" in rest.partition("/")[0] or "?" in rest:
        # Not repeated in the message: it may hold a secret.
        raise StorageError(
            f"a {scheme}:// output holds credentials or options; leave its bucket and prefix, and "
            "set the rest in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)"
        )
    return ObjectStorage(uri.rstrip("/"))
