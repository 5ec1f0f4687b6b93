"""Fused adapters in a store: ``fused/KEY.safetensors``, created whole and never changed.

A file's metadata holds the digest of its tensors, which is compared before anything is sampled with
it: what came to harm on a disk must not become a picture.
"""

from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError

FUSED_FOLDER = "fused"
_SUFFIX = ".safetensors"


def fused_name(key: str) -> str:
    """Return the name of an adapter's file."""
    return f"{FUSED_FOLDER}/{key}{_SUFFIX}"


def fused_keys(storage: Storage) -> set[str]:
    """Return the keys of all adapters in a store."""
    names = storage.list(FUSED_FOLDER, _SUFFIX)
    return {name.removeprefix(f"{FUSED_FOLDER}/").removesuffix(_SUFFIX) for name in names}


def check_fused(storage: Storage, name: str) -> None:
    """Read an adapter through.

    Raises:
        DamagedFileError: It does not hold what was written to it.
        FileNotFoundError: There is none.
    """
    check_content(storage, name, storage.read(name))


def check_content(storage: Storage, name: str, content: bytes) -> None:
    """Raise DamagedFileError if ``content`` is not what was written to the adapter ``name``."""
    # Imported late: what asks which adapters there are needs no torch.
    from safetensors import SafetensorError
    from safetensors.torch import load

    from clora_core.fuse.adapter_file import provenance_of
    from clora_core.lora.plain_file import tensors_digest

    try:
        facts = provenance_of(content)
        recorded, key = facts["tensors_sha256"], facts["key"]
        found = tensors_digest(load(content))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DamagedFileError(storage.uri, name, f"is no fused adapter ({error})") from error
    if found != recorded:
        raise DamagedFileError(storage.uri, name, "holds other tensors than were written")
    if fused_name(key) != name:
        raise DamagedFileError(storage.uri, name, f"holds another adapter, {key}")
