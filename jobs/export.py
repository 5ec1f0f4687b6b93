"""``clora export``: an output in the form that another tool reads."""

from jobs.evaluated import open_output
from jobs.looking import looking
from manifests.place_names import absolute
from pipelines.damages import Damages
from pipelines.storage import open_storage
from pipelines.webdataset import write_webdataset

__all__ = ["export"]


@looking
def export(damages: Damages, output: str, *, webdataset: str) -> str:
    """Write the images of ``output`` as WebDataset shards into the folder ``webdataset``."""
    storage, _ = open_output(output, damages)
    target = open_storage(absolute(webdataset, beside="."))
    num_images, num_shards = write_webdataset(storage, target, damages=damages)
    return f"{num_images:,} images in {num_shards:,} shard(s) in {target.uri}"
