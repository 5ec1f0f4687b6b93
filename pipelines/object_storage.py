"""A run's output in an object store: S3, any store that speaks its protocol, or Google's.

A commit is one PUT that the store refuses if the name is taken (``If-None-Match: *`` on S3,
``ifGenerationMatch=0`` on Google's); every object appears whole or not at all. The client repeats
what the store throttles or drops, with growing, jittered pauses. It repeats a read or an ordinary
write as often as it likes, but a conditional write whose answer was lost it cannot: the second try
may be refused because of the first. So that one is repeated here, and a refusal after a lost answer
is settled by reading what is there.

Credentials and the endpoint come from the environment of whoever opens it (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...), so none travel to another machine
and none stand in a job file.
"""

import builtins
import io
import os
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, BinaryIO, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import GCSStore, S3Store

from pipelines.storage import StorageError

__all__ = ["SCHEMES", "ObjectStorage"]

SCHEMES = ("s3", "gs")

NUM_TRIES = 8
"""Of a conditional write. With pauses that double from ``FIRST_PAUSE_S`` about a minute."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
READ_AHEAD_BYTES = 256 * 1024
"""A unit's footer and its keys are small; images are what must not be read along with them."""

Result = TypeVar("Result")


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

    def put(self, name: str, content: bytes) -> None:
        """Write an object, replacing what is there; readers see the old one or the new one."""
        with self._sentences(name):
            # One request: many parts could be left behind, hidden and paid for, by a kill.
            _repeated(
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
            return _repeated(create)

    def read(self, name: str) -> bytes:
        """Return an object's content; FileNotFoundError if there is none."""
        with self._sentences(name):
            return _repeated(lambda: bytes(obstore.get(self._store, self._path(name)).bytes()))

    @contextmanager
    def open(self, name: str) -> Generator[BinaryIO]:
        """Open an object for reading at any position; FileNotFoundError if there is none."""
        with self._sentences(name):
            size = int(_repeated(lambda: obstore.head(self._store, self._path(name)))["size"])
            raw = _Ranges(self._store, self._path(name), size)
            with io.BufferedReader(raw, READ_AHEAD_BYTES) as file:
                yield cast("BinaryIO", file)

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._sentences(name):
                _repeated(lambda: obstore.head(self._store, self._path(name)))
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str, suffix: str) -> "builtins.list[str]":
        """Return the sorted names of the objects directly in ``folder``; none is fine."""
        with self._sentences(folder):
            found = _repeated(
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
        after: str | None = None
        with self._sentences(folder):
            # One page at a time, so that a page that breaks off is asked for again.
            while page := _repeated(lambda after=after: self._page(folder, after)):
                yield from (self._name(path) for path in page)
                after = page[-1]

    def _page(self, folder: str, after: str | None) -> "builtins.list[str]":
        stream = obstore.list(self._store, self._path(folder), offset=after)
        return [str(item["path"]) for item in next(stream, [])]

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""
        with self._sentences(name):
            try:
                _repeated(lambda: obstore.delete(self._store, self._path(name)))
            except FileNotFoundError:
                return

    @property
    def _store(self) -> Any:
        return _client(self._root)

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
        content = _repeated(
            lambda: obstore.get_range(self._store, self._path, start=start, length=length)
        )
        buffer[:length] = memoryview(content)
        self._at += length
        return length


def _repeated(request: Callable[[], Result]) -> Result:
    """Return what ``request`` gives, repeating it when the answer may be another next time.

    The client repeats too, but not everything: not a write that may have arrived, and not a body
    that breaks off.
    """
    for index in range(NUM_TRIES):
        try:
            return request()
        except BaseError as error:
            if index == NUM_TRIES - 1 or not _may_pass(error):
                raise
        limit_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**index)
        # All workers of a run meet a throttling store at once and must not come back at once.
        time.sleep(random.uniform(limit_s / 2, limit_s))  # noqa: S311
    raise AssertionError("unreachable: the last try returns or raises")


def _may_pass(error: BaseError) -> bool:
    """Return whether a failure is one of the moment; refusals are not."""
    return type(error).__name__ in ("GenericError", "JoinError")


def _reason(error: BaseError) -> str:
    """Return what happened in one line, without the request (it holds headers and addresses)."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.partition('Debug source')[0].strip()[:300]}"


@lru_cache(maxsize=16)
def _client(root: str) -> Any:
    """Return the client of a bucket; one for all threads, because it keeps connections."""
    scheme, _, bucket = root.partition("://")
    retries: Any = {
        "max_retries": 6,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE_S),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=90),
    }
    if scheme == "gs":
        return GCSStore(bucket, retry_config=retries)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    options: Any = {
        "allow_http": endpoint.startswith("http://"),
        "timeout": timedelta(seconds=60),
        "connect_timeout": timedelta(seconds=5),
    }
    config: Any = {"endpoint": endpoint} if endpoint else {}
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        config["region"] = "us-east-1"
    return S3Store(
        bucket, config=config, client_options=options, retry_config=retries, conditional_put="etag"
    )
