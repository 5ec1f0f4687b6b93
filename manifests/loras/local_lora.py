"""A LoRA on this machine: its file, and what peft keeps beside it.

A catalog names a safetensors file, or the folder that peft's ``save_pretrained`` has written. From
a store or the model hub the file of tensors comes together with the settings beside it, into one
folder, so that whatever reads the local file finds its strength where peft would.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from pyarrow import fs

from clora_core.recipe.lora.adapter_config import ADAPTER_FILE, CONFIG_FILE, MAX_CONFIG_BYTES
from manifests.places.allowed_roots import AllowedRoots
from manifests.places.file_cache import local_copy
from manifests.places.folder_cache import linked_folder
from manifests.places.hub_files import (
    cached_copy,
    hub_copy,
    hub_sizes,
    optional_hub_copy,
    pinned,
)
from manifests.places.hub_names import HubFile, hub_file, hub_hint
from manifests.places.locations import LocationError, stat
from manifests.places.place_names import is_uri, joined, parent, split_options
from manifests.text.wording import did_you_mean, listed

MAX_LISTED = 5


def local_lora(uri: str, *, sha256: str | None = None, cache: Path | None = None) -> Path:
    """Return the local safetensors file of a LoRA.

    Args:
        uri: Absolute path, URI or hub name (``HubFile``) of the file, or of a folder that peft has
            written. A branch or tag of the hub stands for its commit of now.
        sha256: The file's, if known: then a cached copy is used without asking the store.
        cache: Where copies are kept; the user's cache if None.

    Raises:
        LocationError: It cannot be read, is too large, or a folder without peft's file.
        StoreAwayError: The store or the hub does not answer.
    """
    of_hub = hub_file(uri)
    if of_hub is not None:
        return _hub_lora(pinned(of_hub))
    if not is_uri(uri):
        return lora_file(Path(uri))
    if hub_hint(uri):
        raise LocationError(f"{uri} is no store's URI{hub_hint(uri)}")
    file = _file_in_store(uri)
    copy = local_copy(file, sha256=sha256, cache=cache)
    if PurePosixPath(split_options(file)[0]).name != ADAPTER_FILE:
        return copy
    config = joined(parent(file), CONFIG_FILE)
    if stat(config).type == fs.FileType.NotFound:
        return copy
    settings = local_copy(config, max_bytes=MAX_CONFIG_BYTES, cache=cache)
    return linked_folder({ADAPTER_FILE: copy, CONFIG_FILE: settings}, cache=cache) / ADAPTER_FILE


def lora_file(path: Path) -> Path:
    """Return the file of a local LoRA; a file is itself, a folder stands for peft's file in it."""
    if not path.is_dir():
        if not path.exists() and hub_hint(str(path)):
            raise LocationError(f"{path} does not exist{hub_hint(str(path))}")
        return path
    if not (path / ADAPTER_FILE).exists():
        raise LocationError(_no_file_of_peft(str(path)))
    return path / ADAPTER_FILE


def identity_files(path: str) -> tuple[str, ...]:
    """Return the files that decide what the local LoRA file ``path`` is; not all need be there."""
    config = str(Path(path).with_name(CONFIG_FILE))
    return (path, config) if Path(path).name == ADAPTER_FILE else (path,)


def lora_refusal(uri: str, allowed: AllowedRoots) -> str | None:
    """Return why a LoRA may not be read, None if it may.

    A link in a folder may lead anywhere, so what is read in one is judged file by file.

    Args:
        uri: As in ``local_lora``.
        allowed: Where LoRAs may be.
    """
    if hub_file(uri) is not None:
        return allowed.refusal(uri)
    name = PurePosixPath(split_options(uri)[0]).name
    places = [uri]
    if name == ADAPTER_FILE:
        places.append(joined(parent(uri), CONFIG_FILE))
    elif not name.endswith(".safetensors"):
        places += [joined(uri, ADAPTER_FILE), joined(uri, CONFIG_FILE)]
    return next(filter(None, map(allowed.refusal, places)), None)


def by_catalog_names(sentence: str, path: Path, uri: str) -> str:
    """Return a sentence about the local file ``path`` with the names that people know it by."""
    of_hub = hub_file(uri)
    if of_hub is not None:
        of_hub = _named_file(of_hub)
        file, config = str(of_hub), str(of_hub.beside(CONFIG_FILE))
    elif is_uri(uri):
        # A fetched file is called by its hash here.
        file = uri if _has_file_name(uri) else joined(uri, ADAPTER_FILE)
        config = joined(parent(file), CONFIG_FILE)
    else:
        return sentence
    return sentence.replace(str(path), file).replace(str(path.with_name(CONFIG_FILE)), config)


def _hub_lora(named: HubFile) -> Path:
    """Return the local file of a pinned LoRA of the hub."""
    file = _named_file(named)
    if file is not named and cached_copy(file) is None:
        _check_folder(named)
    copy = hub_copy(file)
    if PurePosixPath(file.path).name == ADAPTER_FILE:
        # The client's cache has it in the same folder.
        optional_hub_copy(file.beside(CONFIG_FILE), max_bytes=MAX_CONFIG_BYTES)
    return copy


def _named_file(named: HubFile) -> HubFile:
    return named if _has_file_name(named.path) else named.inside(ADAPTER_FILE)


def _check_folder(folder: HubFile) -> None:
    """Refuse a name that ends in no ``.safetensors`` and is no folder with peft's file."""
    paths = tuple(hub_sizes(folder))
    if folder.inside(ADAPTER_FILE).path in paths:
        return
    files = [path for path in paths if _has_file_name(path)]
    if folder.path in paths:
        raise LocationError(
            f"{folder} does not end in .safetensors, and only that format is read; "
            f"{did_you_mean(folder.path, files)}"
        )
    start = f"{folder.path}/" if folder.path else ""
    if not any(path.startswith(start) for path in paths):
        raise LocationError(
            f"{folder} does not exist: the repository has no such file or folder at this "
            f"revision; {did_you_mean(folder.path, files)}"
        )
    inside = [replace(folder, path=path) for path in files if path.startswith(start)]
    way_out = (
        f"name the file: {listed(list(map(str, inside)), MAX_LISTED)}"
        if inside
        else (f"no file in it ends in .safetensors; {did_you_mean(folder.path, files)}")
    )
    raise LocationError(f"{folder} is a folder without {ADAPTER_FILE}; {way_out}")


def _file_in_store(uri: str) -> str:
    if _has_file_name(uri) or stat(uri).type != fs.FileType.Directory:
        return uri
    file = joined(uri, ADAPTER_FILE)
    if stat(file).type == fs.FileType.NotFound:
        raise LocationError(_no_file_of_peft(uri))
    return file


def _has_file_name(uri: str) -> bool:
    return split_options(uri)[0].lower().endswith(".safetensors")


def _no_file_of_peft(folder: str) -> str:
    return (
        f"{folder} is a folder without {ADAPTER_FILE}; name a .safetensors file, or a folder that "
        "peft's save_pretrained has written"
    )
