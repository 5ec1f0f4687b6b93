"""``clora export``: an output in the form that another tool reads."""

from jobs.console.evaluated import open_output
from jobs.console.looking import looking
from manifests.places.place_names import absolute
from pipelines.outputs.webdataset import write_webdataset
from pipelines.storage.storage import open_storage
from pipelines.units.damages import Damages


@looking
def export(damages: Damages, output: str, *, webdataset: str) -> str:
    """Write the images of ``output`` as WebDataset shards into the folder ``webdataset``."""
    storage, _ = open_output(output, damages)
    target = open_storage(absolute(webdataset, beside="."))
    num_images, num_shards = write_webdataset(storage, target, damages=damages)
    return f"{num_images:,} images in {num_shards:,} shard(s) in {target.uri}"
