"""Arrow's client for reading from S3 and stores that speak its protocol, patient with both.

The endpoint and the region come from the variables that Amazon's own tools read
(``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_DEFAULT_REGION``), as do the
credentials; Arrow looks for a region itself but tries only three times.
"""

import os
from urllib.parse import urlsplit

from pyarrow import fs

__all__ = ["s3_filesystem"]

NUM_TRIES = 10
"""Of one request that was throttled or dropped; pauses between them grow and are jittered."""

CONNECT_S = 5.0
REQUEST_S = 60.0
ANY_REGION = "us-east-1"
"""What other stores than Amazon's are asked with; signing needs a name."""


def s3_filesystem(bucket: str) -> fs.S3FileSystem:
    """Return the client for ``bucket``.

    Raises:
        OSError: Amazon cannot be asked for the bucket's region.
        ValueError: The endpoint is not a URL.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = ANY_REGION if endpoint else fs.resolve_s3_region(bucket)
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise ValueError(f"AWS_ENDPOINT_URL should be http(s)://host:port, got {endpoint!r}")
    return fs.S3FileSystem(
        region=region,
        endpoint_override=parts.netloc or None,
        scheme=parts.scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=NUM_TRIES),
    )
