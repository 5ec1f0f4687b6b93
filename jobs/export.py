"""``clora export``: an output in the form that another tool reads."""

import sys

from jobs.evaluated import NoOutputError, open_output
from manifests.locations import absolute
from pipelines.storage import StorageError, open_storage
from pipelines.webdataset import write_webdataset

__all__ = ["export"]


def export(output: str, *, webdataset: str) -> int:
    """Write the images of ``output`` as WebDataset shards into the folder ``webdataset``.

    Returns:
        The exit code: 0, or 2 if either place cannot be used.
    """
    try:
        storage, _ = open_output(output)
        target = open_storage(absolute(webdataset, beside="."))
        num_images, num_shards = write_webdataset(storage, target)
    except (NoOutputError, StorageError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{num_images:,} images in {num_shards:,} shard(s) in {target.uri}")
    return 0
