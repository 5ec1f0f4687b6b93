"""What people call a LoRA file: its name without the ending, wherever it is."""

from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from clora_core.recipe.lora.adapter_config import ADAPTER_FILE
from manifests.places.hub_names import hub_file
from manifests.places.place_names import is_uri, split_options


def file_stem(place: str) -> str:
    """Return the name of the file at ``place``, without its ending.

    peft gives all of its files one name, so they are called what their folder is called.

    Args:
        place: A path, a URI (in which ``%20`` is a space) or a hub name.
    """
    path: PurePath
    of_hub = hub_file(place)
    if of_hub is not None:
        path = PurePosixPath(of_hub.repository, of_hub.path)
    elif is_uri(place):
        head, _ = split_options(place)
        # Decoded part by part: an escaped slash is no border of a folder.
        path = PurePosixPath(*(unquote(part).replace("/", "_") for part in head.split("/")))
    else:
        path = Path(place).absolute()
    if path.name == ADAPTER_FILE:
        return path.parent.name
    return path.stem if path.stem.strip() else path.name
