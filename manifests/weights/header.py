"""The header of a safetensors file, read before anything in it is believed.

The format is eight bytes of length, that many bytes of JSON, then the tensors. Each of the three
can lie: about lengths, about offsets, or about being safetensors at all. Everything is checked
against the file's real size before a tensor byte is touched, so a hostile or broken file costs a
sentence and not memory. Pickles are refused, whatever they are called: loading one runs code.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard, cast

from clora_core.recipe.errors import LoraFileError
from manifests.places.file_cache import MAX_FILE_BYTES
from manifests.text.json_text import load_json
from manifests.weights.file_magic import PICKLE_SUFFIXES, other_format

MAX_HEADER_BYTES = 10 * 1024**2

DTYPE_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Bytes per value of the safetensors dtypes that a LoRA file has been seen with."""

MAX_TENSORS = 100_000
MAX_TENSOR_NAME_CHARACTERS = 500


_ENTRY_FIELDS = ("dtype", "shape", "data_offsets")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """One tensor of the file: dtype, shape, and its bytes [start, end) in the data section."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the file says it holds, checked against its size.

    Attributes:
        tensors: By name, in the order of their bytes.
        metadata: Free text of whoever made the file. Never trusted, only shown.
        data_start: Where the data section begins, in bytes from the start of the file.
        file_bytes: Size of the file.
    """

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int
    file_bytes: int


def read_header(path: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> Header:
    """Return the checked header of the safetensors file ``path``, at most ``max_file_bytes`` long.

    Raises:
        LoraFileError: It isn't there, isn't safetensors, or says what isn't so.
    """
    file_bytes = _size_of_regular_file(path, max_file_bytes)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise LoraFileError(
            f"{path} ends in {path.suffix}: such files are Python pickles, which can run code "
            "when loaded; convert it to .safetensors"
        )
    if path.suffix.lower() != ".safetensors":
        raise LoraFileError(f"{path} does not end in .safetensors; only that format is read")
    try:
        with path.open("rb") as file:
            start = file.read(512)
            length = int.from_bytes(start[:8], "little")
            limit = min(MAX_HEADER_BYTES, file_bytes - 8)
            # A header's length may look like another format's first bytes: 640 is a pickle's.
            if length > limit or start[8:9] != b"{":
                sentence = other_format(start)
                if sentence is not None:
                    raise LoraFileError(f"{path} {sentence}")
            if len(start) < 8 or length > limit:
                raise LoraFileError(
                    f"{path} is truncated or not safetensors: its header should be "
                    f"{length:,} bytes, and at most {max(limit, 0):,} can be; download it again"
                )
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror or error}") from error
    data_bytes = file_bytes - 8 - length
    tensors, metadata = _parse(path, text)
    _check_offsets(path, tensors, data_bytes)
    return Header(tensors=tensors, metadata=metadata, data_start=8 + length, file_bytes=file_bytes)


def _size_of_regular_file(path: Path, max_bytes: int) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise LoraFileError(f"{path} does not exist; check the catalog's uri") from None
    except (OSError, ValueError) as error:
        raise LoraFileError(f"{path} cannot be read: {error}") from error
    # Asked before opening: a named pipe would wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise LoraFileError(f"{path} is not a file but a folder or device")
    if status.st_size == 0:
        raise LoraFileError(f"{path} is empty (0 bytes); download it again")
    if status.st_size > max_bytes:
        raise LoraFileError(
            f"{path} has {status.st_size:,} bytes; a LoRA has at most {max_bytes:,}: "
            "is it a full checkpoint?"
        )
    return status.st_size


def _parse(path: Path, text: bytes) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    if not text.startswith(b"{"):
        raise LoraFileError(
            f"{path} has a header that is not a JSON object; it is not safetensors, or damaged: "
            "download it again"
        )
    try:
        header = load_json(text.decode("utf-8"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise LoraFileError(
            f"{path} has a header that is not valid JSON ({error}); download it again"
        ) from error
    if not isinstance(header, dict):
        raise LoraFileError(f"{path} has a header that is not a JSON object")
    fields = cast("dict[str, Any]", header)
    metadata = fields.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise LoraFileError(f"{path} has metadata that is not a JSON object; save it again")
    known = cast("dict[str, Any]", metadata)
    for key, value in known.items():
        if not isinstance(value, str) or not _is_text(key + value):
            raise LoraFileError(
                f"{path} has metadata whose {key[:100]!r} is not text; safetensors allows text only"
            )
    if len(fields) > MAX_TENSORS:
        raise LoraFileError(
            f"{path} holds {len(fields):,} tensors and a LoRA has at most {MAX_TENSORS:,}: is it "
            "a full checkpoint?"
        )
    for name in fields:
        if len(name) > MAX_TENSOR_NAME_CHARACTERS or not name.isprintable():
            raise LoraFileError(
                f"{path} holds a tensor named {name[:100]!r}, which is longer than "
                f"{MAX_TENSOR_NAME_CHARACTERS} characters or not plain text; save the LoRA again"
            )
    tensors = {name: _entry(path, name, value) for name, value in fields.items()}
    if not tensors:
        raise LoraFileError(f"{path} holds no tensors; save the LoRA again")
    ordered = sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end))
    return dict(ordered), known


def _is_text(value: str) -> bool:
    """Return whether ``value`` can be written at all: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry(path: Path, name: str, value: object) -> TensorEntry:
    where = f"{path}, tensor {name[:200]!r}"
    if not isinstance(value, dict):
        raise LoraFileError(f"{where} is not described by a JSON object")
    fields = cast("dict[str, Any]", value)
    if len(fields) > 3:
        extra = next(key for key in fields if key not in _ENTRY_FIELDS)
        raise LoraFileError(
            f"{where} is described by {extra[:100]!r}, which safetensors does not know; save the "
            "LoRA again"
        )
    dtype, shape, offsets = (fields.get(key) for key in _ENTRY_FIELDS)
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise LoraFileError(f"{where} has the dtype {str(dtype)[:40]!r}; use F32, F16 or BF16")
    if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2 or len(shape) > 8:
        raise LoraFileError(f"{where} has no valid shape and data_offsets")
    start, end = offsets
    if end - start != prod(shape) * DTYPE_BYTES[dtype]:
        raise LoraFileError(
            f"{where} has {end - start} bytes by its offsets, but its shape {shape} of {dtype} "
            "takes another number; download it again"
        )
    return TensorEntry(dtype=dtype, shape=tuple(shape), start=start, end=end)


def _is_counts(value: object) -> TypeGuard[list[int]]:
    """Return whether ``value`` is a list of integers >= 0 that fit a file."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= 2**48 for item in cast("list[object]", value)
    )


def _check_offsets(path: Path, tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    described = max(entry.end for entry in tensors.values())
    if described > data_bytes:
        raise LoraFileError(
            f"{path} is truncated: its header describes {described:,} bytes of tensors and the "
            f"file holds {data_bytes:,}; download it again"
        )
    if described < data_bytes:
        raise LoraFileError(
            f"{path} holds {data_bytes - described:,} bytes after its last tensor; "
            "save or download it again"
        )
    position = 0
    for name, entry in tensors.items():
        if entry.start != position:
            kind = "overlaps the tensor before it" if entry.start < position else "leaves a gap"
            raise LoraFileError(f"{path}, tensor {name[:200]!r} {kind} at byte {entry.start:,}")
        position = entry.end
