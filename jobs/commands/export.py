"""``clora export``: an output in the form that another tool, or a person, reads."""

from typing import Any

from clora_core.recipe.errors import CloraError
from jobs.console.copying import counted
from jobs.console.evaluated import open_output
from jobs.console.looking import looking
from manifests.places.place_names import absolute
from pipelines.ledger.ledger import survey
from pipelines.outputs.file_names import DEFAULT_TEMPLATE
from pipelines.outputs.image_folder import write_image_folder
from pipelines.outputs.image_list import IMAGES_CSV
from pipelines.outputs.list_source import list_source
from pipelines.outputs.webdataset import write_webdataset
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.damages import Damages


class NothingAskedError(CloraError):
    """The command does not say where to."""


@looking
def export(
    damages: Damages,
    output: str,
    *,
    webdataset: str | None = None,
    folder: str | None = None,
    names: str = DEFAULT_TEMPLATE,
) -> str:
    """Write the images of ``output`` as WebDataset shards, as files with readable names, or both.

    Args:
        damages: Gets what is damaged.
        output: The output.
        webdataset: Folder of the shards; None for none.
        folder: Folder of the files; None for none.
        names: Template of the files' names.

    Raises:
        NothingAskedError: There is neither.
    """
    if webdataset is None and folder is None:
        raise NothingAskedError(
            "nothing to export to; name a folder with --folder DIR (PNG files with readable names) "
            "or --webdataset DIR (tar shards)"
        )
    storage, record = open_output(output, damages)
    lines: list[str] = []
    if folder is not None:
        lines.append(_copy(storage, record, _target(folder), names, damages))
    if webdataset is not None:
        target = _target(webdataset)
        num_images, num_shards = write_webdataset(storage, target, damages=damages)
        lines.append(f"{num_images:,} images in {num_shards:,} shard(s) in {target.uri}")
    return "\n".join(lines)


def _copy(
    storage: Storage, record: dict[str, Any], target: Storage, names: str, damages: Damages
) -> str:
    ledger = survey(storage)
    with counted("files") as progress:
        done = write_image_folder(
            storage,
            target,
            list_source(storage, record, ledger, damages),
            template=names,
            damages=damages,
            progress=progress,
        )
    parts = [f"{done.num_written:,} image(s) written"]
    if done.num_kept:
        parts.append(f"{done.num_kept:,} were there")
    if done.num_shared:
        parts.append(f"{done.num_shared:,} row(s) are twice in the manifest and share a file")
    if done.num_without:
        parts.append(f"{done.num_without:,} row(s) have no image (see {IMAGES_CSV})")
    return f"{', '.join(parts)}; in {target.uri}"


def _target(folder: str) -> Storage:
    return open_storage(absolute(folder, beside="."))
