"""Which shards of a folder are an export's own, so that a later one can remove them and no others.

The list is a hidden file, because loaders take every visible file of a folder for data. A shard's
name is on it before the shard is written, so none that a killed export left is ever a stranger;
and it is ``finished`` when exactly the shards that it names are there.
"""

import re
from dataclasses import asdict, dataclass

from manifests.places.place_names import joined
from manifests.text.wording import listed
from pipelines.storage.error import PlaceError
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_json, read_json

SHARD_LIST = ".shards.json"

_SHARD = re.compile(r"images-\d{6,}\.tar")


@dataclass(frozen=True, kw_only=True)
class ShardList:
    """The shards of an export.

    Attributes:
        finished: They are all there, and no others are. If not, they may or may not be there.
        shards: Their names.
        num_images: In all of them; None until it is finished.
    """

    finished: bool
    shards: tuple[str, ...]
    num_images: int | None = None


def shard_name(number: int) -> str:
    """Return the name of a shard; viewers and loaders read ``images-*.tar`` in order."""
    return f"images-{number:06d}.tar"


def write_shard_list(target: Storage, shards: ShardList) -> None:
    """Write the list of a folder; what is there of it is replaced in one step."""
    target.put(SHARD_LIST, encode_json(asdict(shards)))


def own_shards(target: Storage) -> set[str]:
    """Return the names that earlier exports into the folder have listed.

    Raises:
        PlaceError: There are shards that are on no list, or the list is damaged: a reader would
            take them for this export's, and they are not ours to remove.
        StorageError: The folder cannot be read now.
    """
    try:
        own = set(read_json(target, SHARD_LIST, _names))
    except FileNotFoundError:
        own = set[str]()
    except DamagedFileError as error:
        raise PlaceError(
            f"{joined(target.uri, SHARD_LIST)} is damaged (it {error.reason}), so nothing says "
            "which shards are an earlier export's; empty that folder, or name another one"
        ) from error
    found = {name.rpartition("/")[2] for name in target.list("", ".tar")}
    strange = sorted(name for name in found - own if _SHARD.fullmatch(name))
    if strange:
        raise PlaceError(
            f"{target.uri} holds {listed(strange, 1)}, which no export has listed as its own; "
            "readers would take it for a part of this one: move it away, or name another folder"
        )
    return own


def _names(values: dict[str, object]) -> list[str]:
    names = values["shards"]
    if not isinstance(names, list) or not all(
        isinstance(name, str) and _SHARD.fullmatch(name) for name in names
    ):
        raise TypeError("no names of shards")
    return names
