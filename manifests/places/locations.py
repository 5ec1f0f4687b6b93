"""Where files are: a local path, or a URI of a store that Arrow can read (s3, gs, ...).

Every place that takes a path comes through here, so that a manifest in a bucket and one on disk
differ in nothing but their names. Credentials come from the environment, never from a URI: URIs
are printed, logged and stored.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlencode, urlsplit

from pyarrow import ArrowException, NativeFile, fs

from clora_core.recipe.errors import CloraError
from manifests.places.globs import glob_pattern
from manifests.places.patience import RETRY_S, GaveUpError
from manifests.places.place_names import (
    BadAddressError,
    escaped,
    is_uri,
    split_options,
    split_uri,
)
from manifests.places.regular_file import irregularity
from manifests.places.s3_reader import PatientStore, failure_reason, s3_store
from manifests.places.store_address import store_address

_GLOB = re.compile(r"[*?\[]")
_READABLE = "a local path, s3:// or gs://"


class LocationError(CloraError):
    """A place cannot be read; the message is a sentence that names it and the way out."""


class StoreAwayError(CloraError):
    """A store does not answer now; the message names what was asked for and for how long.

    No LocationError: it is not a mistake in the input, and the same command may do better later.
    """

    exit_code = 1


def stat(text: str) -> fs.FileInfo:
    """Return Arrow's file information (type, size, time of change).

    Raises:
        LocationError: The place cannot be asked. A missing file is an answer, not an error.
    """
    with _sentences(text):
        filesystem, path = _filesystem_and_path(text)
        return filesystem.get_file_info(path)


def expand(text: str, *, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files that ``text`` stands for, sorted by name.

    Args:
        text: A file, a folder (all files below it with one of ``suffixes``; names that start
            with ``.`` or ``_`` are skipped) or a glob (``*``, ``?``, ``[..]``, ``**``).
        suffixes: File name endings that count in a folder.

    Raises:
        LocationError: Nothing there, or nothing that matches.
    """
    with _sentences(text):
        filesystem, path = _filesystem_and_path(text)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.Directory:
            found = [
                name
                for name in _files_below(filesystem, path)
                if name.endswith(suffixes) and not _is_hidden(name.removeprefix(path))
            ]
            if not found:
                raise LocationError(
                    f"the folder {text} holds no file that ends in {', '.join(suffixes)}"
                )
        elif info.type != fs.FileType.NotFound:
            _filesystem_and_file(text)  # no pipe, no device
            found = [path]
        elif _GLOB.search(path):
            fixed = path[: _GLOB.search(path).start()].rpartition("/")[0]  # pyright: ignore[reportOptionalMemberAccess]
            try:
                pattern = glob_pattern(path)
            except ValueError as error:
                raise LocationError(f"{text} {error}") from error
            found = [name for name in _files_below(filesystem, fixed) if pattern.fullmatch(name)]
            if not found:
                raise LocationError(f"no file matches {text}")
        else:
            raise LocationError(f"{text} does not exist; check the path")
    return [_as_text(text, name) for name in sorted(found)]


@contextmanager
def open_stream(text: str) -> Generator[NativeFile]:
    """Open a file for reading from start to end; ``.gz``, ``.bz2``, ``.zst`` are unpacked.

    Raises:
        LocationError: It cannot be opened, or reading breaks off.
    """
    with _sentences(text):
        filesystem, path = _filesystem_and_file(text)
        with filesystem.open_input_stream(path, compression="detect") as stream:
            yield stream


@contextmanager
def open_file(text: str) -> Generator[NativeFile]:
    """Open a file for reading at any position; LocationError as in ``open_stream``."""
    with _sentences(text):
        filesystem, path = _filesystem_and_file(text)
        with filesystem.open_input_file(path) as file:
            yield file


def read_bytes(text: str, *, max_bytes: int) -> bytes:
    """Return the content of a small file; LocationError if there are more than ``max_bytes``."""
    with open_stream(text) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise LocationError(f"{text} is larger than {max_bytes:,} bytes; is it the right file?")
    return content


@contextmanager
def _sentences(text: str) -> Generator[None]:
    """Turn the errors of file systems into sentences."""
    try:
        yield
    except FileNotFoundError:
        raise LocationError(f"{text} does not exist; check the path") from None
    except IsADirectoryError:
        raise LocationError(f"{text} is a folder; name a file") from None
    except PermissionError:
        raise LocationError(f"{text} may not be read by this user; check its permissions") from None
    except GaveUpError as error:
        raise StoreAwayError(
            f"{text} cannot be read ({failure_reason(error.failure)}; {error}); check that the "
            "store is up and can be reached, and try again"
        ) from error
    except (OSError, ArrowException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LocationError(f"{text} cannot be read: {reason}") from error


def _filesystem_and_path(text: str) -> tuple[fs.FileSystem | PatientStore, str]:
    if "\0" in text:
        raise LocationError(f"{text!r} holds a NUL character; no file is called that")
    if not is_uri(text):
        return fs.LocalFileSystem(), str(Path(text).absolute())
    try:
        parts = split_uri(text)
    except BadAddressError as error:
        raise LocationError(str(error)) from error
    _, options = split_options(text)
    filesystem = _remote(f"{parts.scheme}://{parts.netloc}{options}")
    if parts.scheme == "file":
        return filesystem, unquote(parts.path)
    return filesystem, f"{parts.netloc}{unquote(parts.path)}".rstrip("/")


def _filesystem_and_file(text: str) -> tuple[fs.FileSystem | PatientStore, str]:
    """Return what opens the file ``text``; LocationError if opening or reading it would wait."""
    filesystem, path = _filesystem_and_path(text)
    problem = irregularity(path) if isinstance(filesystem, fs.LocalFileSystem) else None
    if problem is not None:
        raise LocationError(f"{text} {problem}")
    return filesystem, path


@lru_cache(maxsize=32)
def _remote(root: str) -> fs.FileSystem | PatientStore:
    """Return the store's client; kept, because making one may ask the network."""
    scheme = root.partition("://")[0]
    try:
        address = store_address(root).in_environment()
        if scheme == "s3":
            return s3_store(address)
        if scheme == "gs":
            # Google's client has a time of its own, a quarter of an hour.
            options = {"retry_limit_seconds": f"{RETRY_S:g}"}
            if address.endpoint:
                endpoint = urlsplit(address.endpoint)
                options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
            root = f"gs://{address.bucket}?{urlencode(options)}"
        return fs.FileSystem.from_uri(root)[0]
    except BadAddressError as error:
        raise LocationError(str(error)) from error
    except (ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LocationError(f"{scheme}:// cannot be read ({reason}); use {_READABLE}") from error


def _as_text(text: str, path: str) -> str:
    if not is_uri(text):
        return path
    scheme, (_, options) = text.partition("://")[0], split_options(text)
    return f"{scheme}://{escaped(path)}{options}"


def _files_below(filesystem: fs.FileSystem | PatientStore, folder: str) -> list[str]:
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    return [info.path for info in filesystem.get_file_info(selector) if info.is_file]


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(path).parts)
