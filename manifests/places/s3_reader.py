"""Arrow's client for reading from S3 and stores that speak its protocol, patient with both.

Arrow's own retries count tries, so there are none: ``patience`` has them, and reads that break off
are continued where they did. Arrow finds credentials where Amazon's own tools do, profiles in
``~/.aws`` among them, which the client that outputs are written with does not.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from manifests.places.object_file import ObjectFile
from manifests.places.patience import RETRY_S, Patience, status_may_pass
from manifests.places.store_address import ANY_REGION, StoreAddress

CONNECT_S = 5.0
REQUEST_S = 15.0
"""Of silence, after which a request counts as failed; a slow one may take longer."""

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


def s3_store(address: StoreAddress) -> "PatientStore":
    """Return the client for a bucket.

    Raises:
        GaveUpError: Amazon cannot be asked for the bucket's region.
        OSError: It does not say.
    """
    endpoint, region = urlsplit(address.endpoint), address.region
    if region is None:
        region = ANY_REGION
        if not address.endpoint:
            region = _asking.repeated(lambda: fs.resolve_s3_region(address.bucket), retry_s=RETRY_S)
    filesystem = fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )
    return PatientStore(filesystem, Patience(_may_pass))


class PatientStore:
    """What is used of a store's file system, each request repeated while it fails."""

    def __init__(self, filesystem: fs.FileSystem, patience: Patience) -> None:
        self._filesystem = filesystem
        self._patience = patience

    def get_file_info(self, what: str | fs.FileSelector) -> Any:
        """Return the information of a path, or of all that a selector finds."""
        return self._repeated(lambda: self._filesystem.get_file_info(what))

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for reading at any position; a part that breaks off is asked for again."""
        file = self._repeated(lambda: self._filesystem.open_input_file(path))

        def part(start: int, length: int) -> bytes:
            return self._repeated(lambda: file.read_at(length, start))

        return pa.PythonFile(ObjectFile(file.size(), part), mode="r")

    def open_input_stream(self, path: str, *, compression: str | None) -> pa.NativeFile:
        """Open a file for reading from start to end; ``detect`` unpacks by the name's ending."""
        file = self.open_input_file(path)
        ending = path.rpartition(".")[2]
        if compression != "detect" or ending not in _CODECS:
            return file
        return pa.CompressedInputStream(file, _CODECS[ending])

    def _repeated(self, request: Callable[[], Any]) -> Any:
        return self._patience.repeated(request, retry_s=RETRY_S)


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
