"""A run's output in an object store: S3, any store that speaks its protocol, or Google's.

A commit is one PUT that the store refuses if the name is taken (``If-None-Match: *`` on S3,
``ifGenerationMatch=0`` on Google's); every object appears whole or not at all. If the answer to
such a PUT is lost, a second one may be refused because of the first; so a refusal after a lost
answer is settled by reading what is there.
"""

import builtins
import io
import secrets
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from pipelines.storage_error import PlaceError, StorageError
from pipelines.store_client import client, repeated

__all__ = ["SCHEMES", "ObjectStorage"]

SCHEMES = ("s3", "gs")

_NUM_WRITERS = 8

READ_AHEAD_BYTES = 256 * 1024
"""A unit's footer and its keys are small; images are what must not be read along with them."""


class ObjectStorage:
    """A prefix of a bucket.

    Args:
        uri: ``s3://bucket/prefix`` or ``gs://bucket/prefix``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        self._root = f"{scheme}://{bucket}"
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __reduce__(self) -> tuple[type["ObjectStorage"], tuple[str]]:
        """Travel to workers as the URI alone; they use credentials of their own."""
        return (ObjectStorage, (self.uri,))

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write several objects as ``put`` does, some at once."""
        with ThreadPoolExecutor(_NUM_WRITERS) as pool:
            for _ in pool.map(self.put, files, files.values()):
                pass

    def mark(self, name: str) -> None:
        """Leave an empty object whose name is its content."""
        self.put(name, b"")

    def move(self, name: str, target: str) -> None:
        """Give an object another name; FileNotFoundError if there is none."""
        with self._sentences(name):
            repeated(lambda: obstore.copy(self._store, self._path(name), self._path(target)))
        self.delete(name)

    def put(self, name: str, content: bytes) -> None:
        """Write an object, replacing what is there; readers see the old one or the new one."""
        with self._sentences(name):
            # One request: many parts could be left behind, hidden and paid for, by a kill.
            repeated(
                lambda: obstore.put(
                    self._store, self._path(name), content, mode="overwrite", use_multipart=False
                )
            )

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one; return whether what is there now is ours."""
        answer_lost = False

        def create() -> bool:
            nonlocal answer_lost
            try:
                obstore.put(
                    self._store, self._path(name), content, mode="create", use_multipart=False
                )
            except (AlreadyExistsError, PreconditionError):
                return answer_lost and self.read(name) == content
            except BaseError:
                answer_lost = True
                raise
            return True

        with self._sentences(name):
            return repeated(create)

    def read(self, name: str) -> bytes:
        """Return an object's content; FileNotFoundError if there is none."""
        with self._sentences(name):
            return repeated(lambda: bytes(obstore.get(self._store, self._path(name)).bytes()))

    @contextmanager
    def open(self, name: str) -> Generator[BinaryIO]:
        """Open an object for reading at any position; FileNotFoundError if there is none."""
        with self._sentences(name):
            size = int(repeated(lambda: obstore.head(self._store, self._path(name)))["size"])
            raw = _Ranges(self._store, self._path(name), size)
            with io.BufferedReader(raw, READ_AHEAD_BYTES) as file:
                yield cast("BinaryIO", file)

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._sentences(name):
                repeated(lambda: obstore.head(self._store, self._path(name)))
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str, suffix: str) -> "builtins.list[str]":
        """Return the sorted names of the objects directly in ``folder``; none is fine."""
        with self._sentences(folder):
            found = repeated(
                lambda: obstore.list_with_delimiter(self._store, self._path(folder))["objects"]
            )
        names = [self._name(item["path"]) for item in found]
        return sorted(
            name
            for name in names
            if name.endswith(suffix) and not name.rpartition("/")[2].startswith(".")
        )

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the names of all objects below ``folder``, in no order."""
        for name, _ in self._entries(folder):
            yield name

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of all finished objects below ``folder``, in no order."""
        for name, size in self._entries(folder):
            if not name.rpartition("/")[2].startswith("."):
                yield name, size

    def _entries(self, folder: str) -> Iterator[tuple[str, int]]:
        after: str | None = None
        with self._sentences(folder):
            # One page at a time, so that a page that breaks off is asked for again.
            while page := repeated(lambda after=after: self._page(folder, after)):
                yield from ((self._name(path), size) for path, size in page)
                after = page[-1][0]

    def _page(self, folder: str, after: str | None) -> "builtins.list[tuple[str, int]]":
        stream = obstore.list(self._store, self._path(folder), offset=after)
        return [(str(item["path"]), int(item["size"])) for item in next(stream, [])]

    def settle(self, folder: str) -> None:
        """Do nothing: an object that can be read is kept."""

    def check_writable(self) -> None:
        """Try everything that a run does when it writes, and leave nothing of it.

        A store that overlooks the condition of a write would let a second writer replace a commit.
        """
        probe = f".writing-{secrets.token_hex(8)}-probe"
        self.put_if_absent(probe, b"first")
        try:
            if self.put_if_absent(probe, b"second"):
                raise PlaceError(
                    f"{self.uri} cannot hold an output: the store overlooks the condition that a "
                    "name must be free (If-None-Match), so a commit could be replaced; use another"
                )
        finally:
            self.delete(probe)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""
        with self._sentences(name):
            try:
                repeated(lambda: obstore.delete(self._store, self._path(name)))
            except FileNotFoundError:
                return

    @property
    def _store(self) -> Any:
        return client(self._root)

    def _path(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _name(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    @contextmanager
    def _sentences(self, name: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.uri}/{name} does not exist") from None
        except BaseError as error:
            raise StorageError(
                f"{self.uri}/{name} cannot be used ({_reason(error)}); check the bucket, the "
                "credentials and the endpoint in the environment, and that the store is up"
            ) from None


class _Ranges(io.RawIOBase):
    """An object as a file that asks for what is read of it."""

    def __init__(self, store: Any, path: str, num_bytes: int) -> None:
        self._store = store
        self._path = path
        self._num_bytes = num_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._num_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._num_bytes - self._at)
        if length <= 0:
            return 0
        start = self._at
        content = repeated(
            lambda: obstore.get_range(self._store, self._path, start=start, length=length)
        )
        buffer[:length] = memoryview(content)
        self._at += length
        return length


def _reason(error: BaseError) -> str:
    """Return what happened in one line, without the request (it holds headers and addresses)."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.partition('Debug source')[0].strip()[:300]}"
