"""What a file is, as a hash: the identity that keys and caches rely on.

A LoRA is its tensors: names, dtypes, shapes and bytes, in whatever order the file keeps them; and,
where its metadata or the settings beside it make it stronger or weaker than its tensors say, these
strengths. Whatever else they say counts for nothing. A base model is every file of its folder that
can change a pixel.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clora_core.recipe.errors import LoraFileError
from manifests.places.folder_cache import MODEL_SUFFIXES
from manifests.weights.header import Header, TensorEntry

CHUNK_BYTES = 8 * 1024**2

_EXPONENTS: Mapping[str, tuple[type[np.unsignedinteger], int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
"""Bits that are all ones exactly in infinities and NaNs; the last has no infinities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorHashes:
    """sha256 (hex) of what a LoRA file holds.

    Attributes:
        identity: Of the LoRA.
        file: Of the file.
        data: Of its data section.
        tensors: Of each tensor's bytes, by name.
    """

    identity: str
    file: str
    data: str
    tensors: Mapping[str, str]


def tensor_hashes(
    path: Path,
    header: Header,
    *,
    strengths: Iterable[str] = (),
    unread: Collection[str] = frozenset(),
) -> TensorHashes:
    """Read the file once; return its hashes, and refuse values that are not finite.

    The identity is the sha256 over name, dtype, shape and sha256 of the bytes of every tensor,
    sorted by name, and over ``strengths``. The hash of the data is the one that A1111 and Civitai
    (AutoV3) abbreviate.

    Args:
        path: The file.
        header: Of that file.
        strengths: What is said of its strength beside them, from ``strengths_beside_tensors``.
        unread: Tensors that act nowhere, which may hold anything.

    Raises:
        LoraFileError: A NaN or infinity, or a file that changed while it was read.
    """
    whole, data = hashlib.sha256(), hashlib.sha256()
    each: dict[str, str] = {}
    with path.open("rb") as file:
        whole.update(_read(path, file.read(header.data_start), header.data_start))
        for name, entry in header.tensors.items():
            own = hashlib.sha256()
            left = entry.end - entry.start
            while left:
                chunk = _read(path, file.read(min(left, CHUNK_BYTES)), min(left, CHUNK_BYTES))
                if name not in unread and not _is_finite(chunk, entry):
                    raise LoraFileError(
                        f"{path}, tensor {name[:200]!r} holds values that are not finite (NaN or "
                        "infinity): the training diverged; use an earlier checkpoint"
                    )
                for digest in (own, data, whole):
                    digest.update(chunk)
                left -= len(chunk)
            each[name] = own.hexdigest()
    identity = hashlib.sha256()
    for name in sorted(each):
        entry = header.tensors[name]
        identity.update(f"{name}\0{entry.dtype}\0{list(entry.shape)}\0{each[name]}\n".encode())
    for strength in strengths:
        # One NUL fewer than a tensor's line has, so that neither can be taken for the other.
        identity.update(f"strength\0{strength}\n".encode())
    return TensorHashes(
        identity=identity.hexdigest(), file=whole.hexdigest(), data=data.hexdigest(), tensors=each
    )


def broken_digest(path: Path) -> str:
    """Return the identity of a file that cannot be used: of its bytes, or that it is missing."""
    try:
        if not path.is_file():
            return "broken:missing"
        return f"broken:{file_sha256(path)}"
    except OSError:
        return "broken:unreadable"


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(path: str | Path) -> str:
    """Return the identity (sha256, hex) of a model folder: names and bytes of its model files.

    Pictures, READMEs and hidden files don't count: they change no pixel.

    Raises:
        FileNotFoundError: The folder holds no model file.
    """
    root = Path(path)
    files = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        if file.suffix in MODEL_SUFFIXES and file.is_file()
    )
    files = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
    if not files:
        raise FileNotFoundError(f"{root} holds no model files ({', '.join(MODEL_SUFFIXES)})")
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{file_sha256(root / name)}\n".encode())
    return digest.hexdigest()


def _read(path: Path, chunk: bytes, num_expected: int) -> bytes:
    if len(chunk) != num_expected:
        raise LoraFileError(f"{path} became shorter while it was read; try again")
    return chunk


def _is_finite(chunk: bytes, entry: TensorEntry) -> bool:
    if entry.dtype not in _EXPONENTS:
        return True
    kind, mask = _EXPONENTS[entry.dtype]
    bits = np.frombuffer(chunk, dtype=kind)
    return not bool(((bits & kind(mask)) == kind(mask)).any())
