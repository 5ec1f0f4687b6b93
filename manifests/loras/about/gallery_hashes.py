"""The short hashes by which galleries and web interfaces know a LoRA file.

They are prefixes: good for finding a file, too short to trust one.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from manifests.loras.file import LoraFileInfo

_AUTOV1_START = 0x100000
_AUTOV1_BYTES = 0x10000


def gallery_hashes(path: Path, info: LoraFileInfo) -> Mapping[str, str]:
    """Return the short hashes of the file ``path`` that ``info`` is about, by what they are called.

    Returns:
        ``AutoV1``: 8 digits of the 64 KiB at 1 MiB, only for a file that is longer. ``AutoV2``: 10
        digits of the file; Civitai's usual hash. ``AutoV3``: 12 digits of the data section, the
        same whatever the metadata says; A1111 writes it as "Lora hashes". All lower-case hex.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(_AUTOV1_START)
        piece = file.read(_AUTOV1_BYTES)
    first = {"AutoV1": hashlib.sha256(piece).hexdigest()[:8]} if piece else {}
    return first | {"AutoV2": info.file_sha256[:10], "AutoV3": info.data_sha256[:12]}
