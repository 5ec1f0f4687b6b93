"""Arrow's client for reading from S3 and stores that speak its protocol, patient with both.

The endpoint and the region come from the variables that Amazon's own tools read
(``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_DEFAULT_REGION``), as do the
credentials. Arrow's own retries count tries, so there are none: ``patience`` has them, and reads
that break off are continued where they did.
"""

import os
import re
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from manifests.patience import RETRY_S, Patience, status_may_pass

__all__ = ["PatientStore", "failure_reason", "patient_store", "s3_store"]

CONNECT_S = 5.0
REQUEST_S = 15.0
"""Of silence, after which a request counts as failed; a slow one may take longer."""

ANY_REGION = "us-east-1"
"""What other stores than Amazon's are asked with; signing needs a name."""

_CODECS = {"bz2": "bz2", "gz": "gzip", "lz4": "lz4", "zst": "zstd"}
"""Compressions by the endings that Arrow knows them by."""

_PASSING = (
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "SERVICE_UNAVAILABLE",
    "SLOW_DOWN",
    "THROTTLING",
)
_AWS_ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))?")
_CURL_ERROR = re.compile(r"curlCode: \d+, ([^;\n]+)")


def s3_store(bucket: str) -> "PatientStore":
    """Return the client for ``bucket``.

    Raises:
        GaveUpError: Amazon cannot be asked for the bucket's region.
        OSError: It does not say.
        ValueError: The endpoint is not a URL.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise ValueError(f"AWS_ENDPOINT_URL should be http(s)://host:port, got {endpoint!r}")
    if region is None:
        region = ANY_REGION
        if not endpoint:
            region = _asking.repeated(lambda: fs.resolve_s3_region(bucket), retry_s=RETRY_S)
    filesystem = fs.S3FileSystem(
        region=region,
        endpoint_override=parts.netloc or None,
        scheme=parts.scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return patient_store(filesystem)


def patient_store(filesystem: fs.FileSystem) -> "PatientStore":
    """Return a client of S3 that repeats what fails for a while."""
    return PatientStore(filesystem, Patience(_may_pass))


class PatientStore:
    """What is used of a store's file system, each request repeated while it fails."""

    def __init__(self, filesystem: fs.FileSystem, patience: Patience) -> None:
        self._filesystem = filesystem
        self._patience = patience

    def get_file_info(self, what: str | fs.FileSelector) -> Any:
        """Return the information of a path, or of all that a selector finds."""
        return self._patience.repeated(
            lambda: self._filesystem.get_file_info(what), retry_s=RETRY_S
        )

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for reading at any position."""
        file = self._patience.repeated(
            lambda: self._filesystem.open_input_file(path), retry_s=RETRY_S
        )
        return pa.PythonFile(_PatientFile(file, self._patience), mode="r")

    def open_input_stream(self, path: str, *, compression: str | None) -> pa.NativeFile:
        """Open a file for reading from start to end; ``detect`` unpacks by the name's ending."""
        file = self.open_input_file(path)
        ending = path.rpartition(".")[2]
        if compression != "detect" or ending not in _CODECS:
            return file
        return pa.CompressedInputStream(file, _CODECS[ending])


class _PatientFile:
    """A file of a store, as Python's: a read that fails is made again from where it began."""

    def __init__(self, file: pa.NativeFile, patience: Patience) -> None:
        self._file = file
        self._patience = patience
        self._num_bytes: int = file.size()
        self._at = 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._num_bytes}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._num_bytes - self._at)
        length = rest if size < 0 else min(size, rest)
        if length == 0:
            return b""
        content = self._patience.repeated(
            lambda: self._file.read_at(length, self._at), retry_s=RETRY_S
        )
        self._at += len(content)
        return content


def failure_reason(failure: Exception) -> str:
    """Return what went wrong, in few words."""
    text = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    network = _CURL_ERROR.search(text)
    if network is not None:
        return network[1].strip().lower()
    said = _AWS_ERROR.search(text)
    if said is None:
        return text
    return said[1].lower().replace("_", " ") if said[2] is None else f"HTTP status {said[2]}"


def _may_pass(failure: Exception) -> bool:
    said = _AWS_ERROR.search(str(failure)) if isinstance(failure, OSError) else None
    if said is None:
        return False
    return said[1] in _PASSING or (said[2] is not None and status_may_pass(int(said[2])))


_asking = Patience(_may_pass)
"""With Amazon, when it is asked for the regions of buckets."""
