"""A run's output in an object store: S3, any store that speaks its protocol, or Google's.

A commit is one PUT that the store refuses if the name is taken (``If-None-Match: *`` on S3,
``ifGenerationMatch=0`` on Google's); every object appears whole or not at all. If the answer to
such a PUT is lost, a second one may be refused because of the first; so a refusal after a lost
answer is settled by reading what is there.
"""

import builtins
import io
import mmap
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast
from urllib.parse import unquote

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from manifests.places.object_file import ObjectFile
from manifests.places.patience import RETRY_S, GaveUpError
from manifests.places.place_names import joined, split_options
from pipelines.storage.answers import answer_code, failure_reason, is_no_answer, may_pass
from pipelines.storage.client import COPY_S, client, patience, upload_s
from pipelines.storage.error import PlaceError, StorageError

if TYPE_CHECKING:
    from obstore import ObjectMeta

SCHEMES = ("s3", "gs")

_NUM_WRITERS = 8

_LISTED_AT_ONCE = 1000
"""What stores answer a listing request with; fewer would throw a part of each answer away."""

READ_AHEAD_BYTES = 256 * 1024
"""A unit's footer and its keys are small; images are what must not be read along with them."""

Result = TypeVar("Result")


class ObjectStorage:
    """A prefix of a bucket.

    Args:
        uri: ``s3://bucket/prefix`` or ``gs://bucket/prefix``, options of the store at its end.
        retry_s: For how long a request is repeated, from its first failure, while the store is
            away, whatever the failure is; refusals are not repeated.
    """

    def __init__(self, uri: str, retry_s: float = RETRY_S) -> None:
        head, options = split_options(uri)
        scheme, _, rest = head.partition("://")
        bucket, _, prefix = rest.partition("/")
        self.uri = head.rstrip("/") + options
        self._retry_s = retry_s
        self._root = f"{scheme}://{bucket}{options}"
        # As readers of the same URI take it.
        self._prefix = f"{unquote(prefix.strip('/'))}/" if prefix.strip("/") else ""

    def __reduce__(self) -> tuple[type["ObjectStorage"], tuple[str, float]]:
        """Travel to workers without credentials; they use their own."""
        return (ObjectStorage, (self.uri, self._retry_s))

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
        with self._sentences(name, "read"):
            store = client(self._root, COPY_S)
            self._repeated(lambda: obstore.copy(store, self._path(name), self._path(target)))
        self.delete(name)

    def put(self, name: str, content: bytes) -> None:
        """Write an object, replacing what is there; readers see the old one or the new one."""
        self._asked(name, "written", lambda: self._put(name, content, "overwrite"))

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        """Write an object as ``put`` does, from parts that are taken one at a time.

        They are collected on this machine's disk, since it is one request that may be repeated.
        """
        with tempfile.TemporaryFile() as file:
            for part in parts:
                file.write(part)
            file.flush()
            if not file.tell():
                self.put(name, b"")
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self._asked(name, "written", lambda: self._put(name, content, "overwrite"))

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one; return whether what is there now is ours."""
        answer_lost = False

        def create() -> bool:
            nonlocal answer_lost
            try:
                self._put(name, content, "create")
            except (AlreadyExistsError, PreconditionError) as error:
                if may_pass(error):
                    raise
                # It may be deleted by now.
                with suppress(FileNotFoundError):
                    return answer_lost and self._get(name) == content
                return False
            except BaseError as error:
                answer_lost = answer_lost or is_no_answer(error)
                raise
            return True

        return self._asked(name, "written", create)

    def read(self, name: str) -> bytes:
        """Return an object's content; FileNotFoundError if there is none."""
        return self._asked(name, "read", lambda: self._get(name))

    @contextmanager
    def open(self, name: str) -> Generator[BinaryIO]:
        """Open an object for reading at any position; FileNotFoundError if there is none."""
        with self._sentences(name, "read"):
            raw = ObjectFile(self._num_bytes(name), partial(self._part, name))
            with io.BufferedReader(raw, READ_AHEAD_BYTES) as file:
                yield cast("BinaryIO", file)

    def exists(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._sentences(name, "read"):
                self._num_bytes(name)
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str, suffix: str) -> "builtins.list[str]":
        """Return the sorted names of the objects directly in ``folder``; none is fine."""
        with self._sentences(folder, "listed"):
            found = self._repeated(
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
        for item in self._entries(folder):
            yield self._name(item["path"])

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of all finished objects below ``folder``, in no order."""
        for item in self._entries(folder):
            name = self._name(item["path"])
            if not name.rpartition("/")[2].startswith("."):
                yield name, int(item["size"])

    def versions(self, folder: str) -> Iterator[tuple[str, int, str]]:
        """Yield (name, bytes, version) of the objects directly in ``folder``, in no order.

        The version is the ETag. A store that gives none says when the object was written, to the
        second; that is no version.
        """
        for item in self._entries(folder):
            name = self._name(item["path"])
            above, _, last = name.rpartition("/")
            if above == folder and not last.startswith("."):
                yield name, int(item["size"]), item.get("e_tag") or ""

    def version(self, name: str) -> tuple[int, str]:
        """Return bytes and version of an object, as ``versions`` has them."""
        with self._sentences(name, "read"):
            found = self._found(name)
            return int(found["size"]), found.get("e_tag") or ""

    def _entries(self, folder: str) -> "Iterator[ObjectMeta]":
        after: str | None = None
        with self._sentences(folder, "listed"):
            # One page at a time, so that a page that breaks off is asked for again.
            while page := self._repeated(lambda after=after: self._page(folder, after)):
                yield from page
                after = page[-1]["path"]

    def _page(self, folder: str, after: str | None) -> "Sequence[ObjectMeta]":
        stream = obstore.list(
            self._store, self._path(folder), offset=after, chunk_size=_LISTED_AT_ONCE
        )
        return next(stream, [])

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
        with self._sentences(name, "deleted"), suppress(FileNotFoundError):
            self._repeated(lambda: obstore.delete(self._store, self._path(name)))

    def _num_bytes(self, name: str) -> int:
        return int(self._found(name)["size"])

    def _found(self, name: str) -> "ObjectMeta":
        return self._repeated(lambda: obstore.head(self._store, self._path(name)))

    def _part(self, name: str, start: int, length: int) -> memoryview:
        return self._repeated(
            lambda: memoryview(
                obstore.get_range(self._store, self._path(name), start=start, length=length)
            )
        )

    def _put(
        self, name: str, content: bytes | mmap.mmap, mode: Literal["create", "overwrite"]
    ) -> None:
        store = client(self._root, upload_s(len(content)))
        # One request: many parts could be left behind, hidden and paid for, by a kill.
        obstore.put(store, self._path(name), content, mode=mode, use_multipart=False)

    def _get(self, name: str) -> bytes:
        return bytes(obstore.get(self._store, self._path(name)).bytes())

    def _asked(self, name: str, verb: str, request: Callable[[], Result]) -> Result:
        with self._sentences(name, verb):
            return self._repeated(request)

    def _repeated(self, request: Callable[[], Result]) -> Result:
        return patience(self._root).repeated(request, retry_s=self._retry_s)

    @property
    def _store(self) -> Any:
        return client(self._root)

    def _path(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _name(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    @contextmanager
    def _sentences(self, name: str, verb: str) -> Generator[None]:
        """Raise what the store answers within the block as a sentence.

        Args:
            name: The object or folder.
            verb: What was tried, as a participle.
        """
        start = f"{joined(self.uri, name)} cannot be {verb}"
        try:
            yield
        except GaveUpError as error:
            raise StorageError(
                f"{start} ({failure_reason(error.failure)}; {error}); check that the store is up "
                "and can be reached, and run the same command again: what is committed stays "
                "(resources.store_retry_s in the job file sets for how long is tried)"
            ) from None
        except (FileNotFoundError, BaseError) as error:
            is_missing = isinstance(error, FileNotFoundError)
            if answer_code(error) == "NoSuchBucket" or (is_missing and verb == "written"):
                raise PlaceError(
                    f"{start}: there is no bucket {self._root}; make it, or name another place"
                ) from None
            if is_missing:
                raise FileNotFoundError(f"{joined(self.uri, name)} does not exist") from None
            is_late = answer_code(error) == "RequestTimeTooSkewed"
            clock = ", and the clock of this machine" if is_late else ""
            raise StorageError(
                f"{start} ({failure_reason(error)}); check the bucket, the credentials and the "
                f"endpoint in the environment{clock}"
            ) from None
