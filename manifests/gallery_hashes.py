"""The short hashes by which galleries and web interfaces know a LoRA file.

They are prefixes: good for finding a file, too short to trust one.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from manifests.lora_file import LoraFileInfo

__all__ = ["GalleryHashes", "gallery_hashes"]

_AUTOV1_START = 0x100000
_AUTOV1_BYTES = 0x10000


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryHashes:
    """Short hashes of one file, lower-case hex.

    Attributes:
        autov1: 8 digits of the 64 KiB at 1 MiB; None for a file that ends before.
        autov2: 10 digits of the file; Civitai's usual hash.
        autov3: 12 digits of the data section, the same whatever the metadata says; A1111 writes it
            as "Lora hashes".
    """

    autov1: str | None
    autov2: str
    autov3: str


def gallery_hashes(path: Path, info: LoraFileInfo) -> GalleryHashes:
    """Return the short hashes of the file ``path`` that ``info`` is about.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_AUTOV1_START)
        piece = file.read(_AUTOV1_BYTES)
    return GalleryHashes(
        autov1=hashlib.sha256(piece).hexdigest()[:8] if piece else None,
        autov2=info.file_sha256[:10],
        autov3=info.data_sha256[:12],
    )
