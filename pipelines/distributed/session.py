"""Ray Data as planning uses it, and what goes wrong in it as a sentence."""

import errno
import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
from ray import data
from ray.exceptions import (
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)  # fmt: skip

from pipelines.distributed.messages import facts_of
from pipelines.session.cluster_error import ClusterError
from pipelines.stages.graph import own_error, set_up_ray_data

_FULL = (OutOfDiskError, ObjectStoreFullError)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_LOST = (ObjectLostError, WorkerCrashedError, OutOfMemoryError)


@contextmanager
def ray_data(what: str) -> Generator[None]:
    """Set Ray Data up for the block, and say what goes wrong with Ray in it as a sentence.

    Args:
        what: Is done to the manifest, for that sentence.

    Raises:
        ClusterError: The cluster has no room for it, or lost it.
    """
    set_up_ray_data()
    # On a full disk each line that Ray cannot log would be a traceback on the terminal.
    are_raised, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except RayTaskError as error:
        cause = own_error(error)
        if isinstance(error.cause, _FULL):
            raise _no_room(what, error.cause) from error
        raise cause from error
    except _FULL as error:
        raise _no_room(what, error) from error
    except OSError as error:
        # Ray's logs are on that disk, and closing them hides the reason.
        if error.errno not in _NO_SPACE:
            raise
        raise _no_room(what, error) from error
    except _LOST as error:
        raise ClusterError(
            f"the cluster lost a worker or what it held while the manifest was {what} "
            f"({_first_line(error)}); nothing is lost of the output: run the same command again"
        ) from error
    finally:
        logging.raiseExceptions = are_raised


def finished(dataset: data.Dataset) -> data.Dataset:
    """Return the dataset made: what comes after it begins when its tasks have ended."""
    return dataset.materialize()


def facts_in(dataset: data.Dataset, kind: str) -> Iterator[tuple[int, Any]]:
    """Yield number and facts of each message of a kind that has any, in no order.

    Tasks read them where the messages are: a run of Ray Data for it would cost half a second.
    """
    read: Any = ray.remote(_block_facts)
    blocks: list[Any] = dataset.to_arrow_refs()
    for found in ray.get([read.remote(block, kind) for block in blocks]):
        yield from found


def _block_facts(block: pa.Table, kind: str) -> list[tuple[int, Any]]:
    return list(facts_of(block, kind))


def num_workers() -> int:
    """Return how many tasks the cluster does at a time."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _no_room(what: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"the disk that Ray puts what outgrows its memory on is full, so the manifest cannot be "
        f"{what} ({_first_line(error)}); make room there, set TMPDIR (or object_spilling_directory "
        "of the cluster) to a folder on a larger disk, or plan in this process with "
        "`plan_on: driver`"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
