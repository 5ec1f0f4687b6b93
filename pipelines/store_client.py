"""The client of a bucket, and the patience that stores ask for.

Credentials and the endpoint come from the environment of whoever opens it (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...), so none travel to another machine
and none stand in a job file.
"""

import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from obstore.exceptions import BaseError
from obstore.store import GCSStore, S3Store

__all__ = ["client", "repeated"]

NUM_TRIES = 6
"""Of what the client gave up; with its own tries, about a minute of a store that is down."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
Result = TypeVar("Result")


def repeated(request: Callable[[], Result]) -> Result:
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


@lru_cache(maxsize=16)
def client(root: str) -> Any:
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
