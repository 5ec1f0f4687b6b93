"""The one door through which files of an output are read: each is itself, or named as damaged.

A disk flips bytes, a tool truncates, a copy breaks off. Whatever a file of an output holds instead
of what was written, the reader gets DamagedFileError with the file's name and the way out, and
never a parser's own error. Nothing else in the product parses these files.

They are encoded here as well, with what makes damage visible. A JSON object holds the SHA-256 of
its other values. A Parquet file has a checksum of every page, which Arrow compares, and a SHA-256
of its footer, which is compared before Arrow sees the footer: a damaged one can end the whole
process inside Arrow. That digest stands right before the footer, in a gap that readers of Parquet
skip, because they find everything by its offset. Files of earlier releases have none of these.
"""

import hashlib
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from clora_core.recipe.errors import CloraError
from manifests.places.place_names import joined
from pipelines.storage.storage import Storage

Value = TypeVar("Value")

OpenParquet = pq.ParquetFile
"""What ``open_parquet`` gives."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 8
"""Of a Parquet file: the footer's length and the magic number."""

DAMAGED_FOLDER = "damaged"
"""Where ``clora verify --repair`` sets files aside."""

MISSING = "is missing"
"""Why a file is damaged that is not there."""

_JSON_DIGEST = "sha256"
_NAME = b"clora.file"
_MARK = b"clora-footer-sha256:"
_DIGEST_BYTES = hashlib.sha256().digest_size
_GAP_BYTES = len(_MARK) + _DIGEST_BYTES


class DamagedFileError(CloraError):
    """A file of an output does not hold what was written to it.

    Args:
        place: The output.
        name: The file's name in it.
        reason: What is wrong with it, as the rest of "it ...".
    """

    def __init__(self, place: str, name: str, reason: str) -> None:
        super().__init__(place, name, reason)
        self.place = place
        self.name = name
        self.reason = reason

    @property
    def way_out(self) -> str:
        """The end of a sentence: what repairs the file."""
        return f"`clora verify {quote(self.place)} --repair` restores it or sets it aside"

    def __str__(self) -> str:
        """Return the sentence that names the file and the way out."""
        return f"{joined(self.place, self.name)} is damaged: it {self.reason}; {self.way_out}"


@contextmanager
def naming_damage(storage: Storage, name: str) -> Generator[None]:
    """Raise what a parser says within the block as DamagedFileError of the file ``name``.

    What the disk or the store says passes unchanged: a file that cannot be read now may be whole.
    """
    try:
        yield
    except (
        # Arrow's errors, OSError among them, and what values of another shape lead to.
        pa.ArrowException, OSError, MemoryError, RecursionError, OverflowError,
        KeyError, IndexError, AttributeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        if isinstance(error, OSError) and error.errno is not None:
            # The disk's own word, and no parser's: the file may be whole.
            raise
        lines = str(error).strip().splitlines()
        text = lines[0][:200] if lines else type(error).__name__
        raise DamagedFileError(storage.uri, name, f"cannot be read ({text})") from error


def read_json(storage: Storage, name: str, make: Callable[[dict[str, Any]], Value]) -> Value:
    """Return what ``make`` makes of a file that holds a JSON object.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It holds something else, or ``make`` does not take it.
    """
    content = storage.read(name)
    with naming_damage(storage, name):
        read = json.loads(content)
        if not isinstance(read, dict):
            raise TypeError("no JSON object")
        values = cast("dict[str, Any]", read)
        digest = values.pop(_JSON_DIGEST, None)
        if digest is not None and digest != _json_digest(values):
            raise ValueError("not what was written")
        return make(values)


def encode_json(values: Mapping[str, Any]) -> bytes:
    """Return a JSON file of ``values`` that shows damage when it is read."""
    return json.dumps({**values, _JSON_DIGEST: _json_digest(values)}, indent=2).encode()


def _json_digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def encode_parquet(
    name: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    metadata: Mapping[bytes, bytes] | None = None,
    row_group_size: int | None = None,
) -> bytes:
    """Return a Parquet file of ``tables`` as ``parquet_parts`` gives it."""
    parts = parquet_parts(name, tables, schema, metadata=metadata, row_group_size=row_group_size)
    return b"".join(parts)


def parquet_parts(
    name: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    metadata: Mapping[bytes, bytes] | None = None,
    row_group_size: int | None = None,
    dictionary: Sequence[str] | None = None,
) -> Iterator[bytes]:
    """Yield a Parquet file of ``tables``, all of ``schema``, that shows damage when it is read.

    Args:
        name: The file's name in its output.
        tables: The rows, taken some at a time; what was taken before is yielded by then.
        schema: Of the file; it may have metadata of its own.
        metadata: Further metadata for the footer.
        row_group_size: Most rows of a row group; None for Arrow's own.
        dictionary: Columns whose values repeat; None for all.
    """
    sink = _Parts()
    with pq.ParquetWriter(
        # Images are compressed already; zstd at its fastest is for everything else.
        sink, schema, compression="zstd", compression_level=1, write_page_checksum=True,
        use_dictionary=cast("Any", True if dictionary is None else list(dictionary)),
    ) as writer:  # fmt: skip
        for table in tables:
            if table.num_rows:
                writer.write_table(table, row_group_size=row_group_size)
                yield sink.taken()
        writer.add_key_value_metadata({**(metadata or {}), _NAME: name.encode()})
    yield _with_footer_digest(sink.taken(), sink.num_bytes)


class _Parts(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        part = bytes(content)
        self.num_bytes += len(part)
        self._parts.append(part)
        return len(part)

    def tell(self) -> int:
        return self.num_bytes

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content


@contextmanager
def open_parquet(storage: Storage, name: str) -> Generator[pq.ParquetFile]:
    """Open a Parquet file of the output; everything read within the block is compared.

    Read it with ``use_threads=False``: Arrow's own threads may outlive the interpreter and then end
    the process with an abort.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is damaged, or code within the block finds it to be.
    """
    with storage.open(name) as source, naming_damage(storage, name):
        _check_footer(source)
        with pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True) as file:
            written_as = (file.metadata.metadata or {}).get(_NAME, name.encode()).decode()
            if written_as != name:
                raise ValueError(f"the content of {written_as}")
            _check_schema(file.schema_arrow)
            yield file


def read_table(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a Parquet file of the output (None: all); errors as ``open_parquet``."""
    with open_parquet(storage, name) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


_good_schemas: list[pa.Schema] = []
"""The last that was checked; the files of an output have few, and one after another the same."""


def _check_schema(schema: pa.Schema) -> None:
    if not any(schema.equals(good) for good in _good_schemas):
        _check_types(schema)
        _good_schemas[:] = [schema]


def _check_types(fields: Iterable[pa.Field]) -> None:
    """Refuse types that programs register with Arrow; Ray's unpickles what its values hold."""
    for field in fields:
        if isinstance(field.type, pa.BaseExtensionType):
            raise TypeError(f"column {field.name} has the type {field.type}")
        _check_types(field.type.field(n) for n in range(field.type.num_fields))


def _with_footer_digest(content: bytes, num_bytes: int) -> bytes:
    """Return the end of a file of ``num_bytes``, footer and all, with the footer's digest."""
    start = _footer_start(content[-_TAIL_BYTES:], num_bytes) - (num_bytes - len(content))
    digest = hashlib.sha256(content[start:]).digest()
    return b"".join((content[:start], _MARK, digest, content[start:]))


def _check_footer(source: BinaryIO) -> None:
    """Refuse a footer that is not the one written; files of earlier releases have no digest."""
    num_bytes = source.seek(0, io.SEEK_END)
    source.seek(max(0, num_bytes - _TAIL_BYTES))
    start = _footer_start(source.read(_TAIL_BYTES), num_bytes)
    source.seek(max(0, start - _GAP_BYTES))
    gap = source.read(min(start, _GAP_BYTES))
    footer = source.read()
    source.seek(0)
    has_digest = gap[: len(_MARK)] == _MARK
    if has_digest and hashlib.sha256(footer).digest() != gap[len(_MARK) :]:
        raise ValueError("not the footer that was written")


def _footer_start(tail: bytes, num_bytes: int) -> int:
    """Return where the footer of a Parquet file begins, from the file's end and length."""
    if num_bytes == 0:
        raise ValueError("empty")
    start = num_bytes - _TAIL_BYTES - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or start < len(_MAGIC):
        raise ValueError("cut off, or no Parquet file")
    return start
