"""The client of a bucket, and the patience with it.

Credentials come from the environment of each process (``AWS_ACCESS_KEY_ID``,
``GOOGLE_APPLICATION_CREDENTIALS``, ...), so none travel to another machine and none stand in a job
file; ``manifests.places.store_address`` has where the store is.
"""

from datetime import timedelta
from functools import lru_cache
from typing import Any

from obstore.store import GCSStore, S3Store

from manifests.places.patience import Patience
from manifests.places.store_address import ANY_REGION, BadAddressError, StoreAddress, store_address
from pipelines.storage.answers import may_pass
from pipelines.storage.error import PlaceError

CONNECT_S = 5.0
REQUEST_S = 15.0
"""Of silence, after which a request counts as failed."""

COPY_S = 120.0
"""The same while a store copies an object, of which it says nothing before it is done."""

SLOWEST_BYTES_PER_S = 512 * 1024
"""Of one upload: the client waits for an answer from its start on, several share the network."""

_WHOLE = timedelta(days=1)
"""The client's limit for whole requests; a large object may take its time while bytes come."""


def upload_s(num_bytes: int) -> float:
    """Return after how long an upload without an answer counts as failed.

    One of few values, because each is a client with connections of its own.
    """
    wait_s = REQUEST_S
    while wait_s < REQUEST_S + num_bytes / SLOWEST_BYTES_PER_S - 1.0:
        wait_s *= 2
    return wait_s


@lru_cache(maxsize=32)
def client(root: str, silence_s: float | None = None) -> Any:
    """Return the client of a bucket; one for all threads, because it keeps connections.

    It repeats nothing itself: ``patience`` decides about that.

    Args:
        root: ``s3://bucket`` or ``gs://bucket``, with the options of the store if there are any.
        silence_s: How long to wait for an answer, and between two parts of one; ``REQUEST_S`` if
            None.

    Raises:
        PlaceError: The endpoint in the environment is not a URL.
    """
    address = _address(root)
    options: Any = {
        "allow_http": address.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=REQUEST_S if silence_s is None else silence_s),
        "timeout": _WHOLE,
    }
    no_retries: Any = {"max_retries": 0}
    config: Any = {}
    if address.scheme == "gs":
        if address.endpoint:
            config["base_url"] = address.endpoint
        return GCSStore(
            address.bucket, config=config, client_options=options, retry_config=no_retries
        )
    config["region"] = address.region or ANY_REGION
    if address.endpoint:
        config["endpoint"] = address.endpoint
    return S3Store(
        address.bucket,
        config=config,
        client_options=options,
        retry_config=no_retries,
        conditional_put="etag",
    )


def patience(root: str) -> Patience:
    """Return this process's patience with a bucket: one for all threads."""
    return _patience(_address(root))


@lru_cache(maxsize=64)
def _patience(_address: StoreAddress) -> Patience:
    return Patience(may_pass)


def _address(root: str) -> StoreAddress:
    try:
        return store_address(root).in_environment()
    except BadAddressError as error:
        raise PlaceError(str(error)) from error
