"""The storage interface: replace files, create a file only if it is absent, read, list.

The durability rule, which every method below keeps: **when a write returns, it survives a power
cut**, its name included. So data is written first and then the record that names it (images
before the unit that commits them, plans before the lease that speaks of them), and no record is of
something that is gone. ``mark`` is the one exception, and says so.

Names are relative, with ``/``; names that begin with a dot are unfinished writes and never listed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from manifests.places.patience import RETRY_S
from manifests.places.place_names import BadAddressError
from manifests.places.store_address import store_address
from pipelines.storage.error import PlaceError
from pipelines.storage.local import LocalStorage

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Storage(Protocol):
    """A folder for a run's output, on whatever holds it.

    Every method raises StorageError if the place cannot be used now, and PlaceError, which is one,
    if the same request will be refused again.
    """

    uri: str

    def put(self, name: str, content: bytes) -> None:
        """Write a file, replacing what is there; readers see the old file or the new one."""
        ...

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write several files as ``put`` does, which costs less together than one by one."""
        ...

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """Write a file as ``put`` does, from parts that are taken one at a time.

        What taking a part raises passes, and the file stays as it was.
        """
        ...

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was ours.

        If not, the one that is there survives a power cut as well.
        """
        ...

    def mark(self, name: str) -> None:
        """Leave an empty file whose name is its content; a power cut may take it away."""
        ...

    def move(self, name: str, target: str) -> None:
        """Give a file another name; FileNotFoundError if there is none."""
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

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of all finished files below ``folder``, in no order."""
        ...

    def versions(self, folder: str) -> Iterator[tuple[str, int, str]]:
        """Yield (name, bytes, version) of the finished files directly in ``folder``, in no order.

        A file that is replaced under its name gets another size or version. A version is "" where
        the store gives none, and then says nothing.
        """
        ...

    def version(self, name: str) -> tuple[int, str]:
        """Return bytes and version of a file, as ``versions`` has them.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...

    def settle(self, folder: str) -> None:
        """Make what is directly in ``folder`` survive a power cut, also what others wrote.

        A process that was killed may have named a file and not come to the rest.
        """
        ...

    def check_writable(self) -> None:
        """Try everything that a run does when it writes, and leave nothing of it.

        Raises:
            PlaceError: The place cannot hold an output.
            StorageError: It cannot be used now.
        """
        ...


def open_storage(uri: str, *, retry_s: float = RETRY_S, within: str | None = None) -> Storage:
    """Return the storage at ``uri``; nothing is created before the first write.

    Args:
        uri: A folder's path, or ``s3://bucket/prefix`` or ``gs://bucket/prefix``, with options of
            the store as readers take them (``manifests.places.store_address``). Credentials come
            from the environment.
        retry_s: For how long a request is repeated while a store is away, from its first failure;
            a disk has no use for it.
        within: Another storage's place that ``uri`` is in and that is written first. On a disk it
            must be there: if it was moved away meanwhile, it is not made again.

    Raises:
        PlaceError: A kind of place that commits cannot be made atomic on.
    """
    if "://" not in uri.removeprefix("file://"):
        return LocalStorage(_folder(uri), needed=None if within is None else _folder(within))
    # Imported late: a local output needs no client of any store.
    from pipelines.storage.bucket import SCHEMES, ObjectStorage

    try:
        address = store_address(uri)
    except BadAddressError as error:
        raise PlaceError(f"output {error}") from error
    if address.scheme not in SCHEMES:
        raise PlaceError(
            f"output {uri!r} is in a store that is not known; name a folder on a disk that all "
            "machines share, s3://bucket/prefix or gs://bucket/prefix"
        )
    if not _BUCKET.fullmatch(address.bucket):
        raise PlaceError(
            f"output {uri!r} names no bucket: a bucket's name has letters, digits, dots and dashes"
        )
    return ObjectStorage(uri, retry_s)


def _folder(uri: str) -> Path:
    return Path(uri.removeprefix("file://")).expanduser().absolute()
