"""Committed units without their images, a row each: what a unit's file says to the ledger."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import UnitFooter, in_threads, read_footer
from pipelines.units.output_files import DamagedFileError, OpenParquet, open_parquet

Found = TypeVar("Found")

IDENTITY_BYTES = 16

UNIT = pa.schema(
    [
        ("unit_id", pa.string()),
        ("file_identity", pa.binary(IDENTITY_BYTES)),
        ("run_id", pa.string()),
        ("failed_at_ms", pa.int64()),
        ("is_abandoned", pa.bool_()),
        ("num_rows", pa.int32()),
        ("num_errors", pa.int32()),
        ("keys", pa.list_(pa.string())),
        ("image_sizes", pa.list_(pa.int64())),
        ("errors_json", pa.string()),
    ]
)
"""One unit. ``file_identity`` is of the file that the row was read from; ``image_sizes`` is empty
for units of earlier releases, ``errors_json`` null for units without a failure."""

NARROW = ("unit_id", "file_identity", "num_rows", "num_errors", "is_abandoned")
"""What is known of every unit at once."""

MAX_KEYS = 65_536
"""Of a table."""
MAX_UNITS = 4_096
"""Of a table."""


def file_identity(num_bytes: int, version: str) -> bytes:
    """Return what tells a file from others under its name; without a version, from all others."""
    if not version:
        return secrets.token_bytes(IDENTITY_BYTES)
    text = f"{num_bytes} {version}".encode()
    return hashlib.blake2b(text, digest_size=IDENTITY_BYTES).digest()


class Beside(Protocol[Found]):
    """Reads more of units while they are open for the ledger, which changes nothing of that."""

    def read(self, name: str, file: OpenParquet, keys: pa.Array) -> Found:
        """Return what is read of a unit, damaged or not; called in threads.

        Args:
            name: The unit's file.
            file: The same, open.
            keys: Of its rows.
        """
        ...

    def take(self, found: Found) -> None:
        """Take what was read, in the order of the units."""
        ...


def read_unit_row(
    storage: Storage,
    name: str,
    identity: bytes,
    also: Callable[[OpenParquet, pa.Array], None] = lambda _file, _keys: None,
) -> pa.Table:
    """Return one row of ``UNIT``.

    Args:
        storage: The output.
        name: The unit's file.
        identity: Of that file, from before it is read.
        also: Gets the open file, once it is known to be whole, and the keys of its rows.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: It is not the unit that was committed under this name.
    """
    with open_parquet(storage, name) as file:
        footer = read_footer(file.metadata, name)
        keys = pa.array([], pa.string())
        if file.num_row_groups:
            read = file.read(columns=["key"], use_threads=False)["key"].cast(pa.string())
            keys = pa.concat_arrays([keys, *read.chunks])
        if keys.null_count:
            raise ValueError("a row without a key")
        errors = json.dumps(list(footer.errors)) if footer.errors else None
        row = pa.table(
            {
                "unit_id": [footer.unit_id],
                "file_identity": [identity],
                "run_id": [footer.run_id],
                "failed_at_ms": [footer.failed_at_ms],
                "is_abandoned": [footer.is_abandoned],
                "num_rows": [len(keys)],
                "num_errors": [len(footer.errors)],
                "keys": pa.ListArray.from_arrays(pa.array([0, len(keys)], pa.int32()), keys),
                "image_sizes": [list(footer.image_sizes)],
                "errors_json": [errors],
            },
            schema=UNIT,
        )
        also(file, keys)
        return row


def read_unit_rows(
    storage: Storage,
    names: Iterable[tuple[str, bytes]],
    *,
    skip: Callable[[DamagedFileError], None] | None = None,
    beside: Beside[Found] | None = None,
) -> Iterator[pa.Table]:
    """Yield tables of ``UNIT``, read from the files of units, many at a time.

    Args:
        storage: The output.
        names: Files and their identities. One that is gone by now is left out.
        skip: Gets each damaged unit, which is left out; None raises the first.
        beside: Reads more of each unit that is not.

    Raises:
        DamagedFileError: A unit is damaged, and there is no ``skip``.
    """

    def read(named: tuple[str, bytes]) -> tuple[pa.Table, list[Found]]:
        more: list[Found] = []
        if beside is None:
            return read_unit_row(storage, *named), more
        also = partial(beside.read, named[0])
        row = read_unit_row(storage, *named, lambda file, keys: more.append(also(file, keys)))
        return row, more

    def tried(named: tuple[str, bytes]) -> tuple[pa.Table, list[Found]] | DamagedFileError | None:
        try:
            return read(named)
        except DamagedFileError as error:
            return error
        except FileNotFoundError:
            return None

    def rows() -> Iterator[pa.Table]:
        for found in in_threads(tried, names):
            if isinstance(found, DamagedFileError):
                if skip is None:
                    raise found
                skip(found)
            elif found is not None:
                row, more = found
                if beside is not None:
                    for each in more:
                        beside.take(each)
                yield row

    yield from regrouped(rows())


def regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the units of ``tables`` (``UNIT``), in order, some ``MAX_KEYS`` at a time."""
    held: list[pa.Table] = []
    num_keys = num_units = 0
    for table in tables:
        for part in _parts(table):
            keys = arrow.sum(part["num_rows"]).as_py() or 0
            if held and (num_keys + keys > MAX_KEYS or num_units + len(part) > MAX_UNITS):
                yield pa.concat_tables(held).combine_chunks()
                held, num_keys, num_units = [], 0, 0
            held.append(part)
            num_keys, num_units = num_keys + keys, num_units + len(part)
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """Yield slices of at most ``MAX_KEYS`` keys, or of one unit, and ``MAX_UNITS`` units."""
    ends = np.cumsum(table["num_rows"].to_numpy())
    start = 0
    while start < len(table):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + MAX_KEYS, side="right"))
        end = min(max(end, start + 1), start + MAX_UNITS)
        yield table.slice(start, end - start)
        start = end


def key_table(units: pa.Table) -> pa.Table:
    """Return ``key`` and ``image_size`` (null if unknown) of all rows of units.

    Args:
        units: With the columns keys and image_sizes.
    """
    columns = [units[name].combine_chunks() for name in ("keys", "image_sizes")]
    keys, sizes = (pa.concat_arrays([*_chunks(column)]) for column in columns)
    num_keys, num_sizes = (arrow.list_value_length(column) for column in (keys, sizes))
    if num_keys.equals(num_sizes):
        values = sizes.flatten()
    elif not len(sizes.flatten()):
        values = pa.nulls(len(keys.flatten()), pa.int64())
    else:
        known = [
            (listed + [None] * count)[:count]
            for listed, count in zip(sizes.to_pylist(), num_keys.to_pylist(), strict=True)
        ]
        values = pa.array([size for listed in known for size in listed], pa.int64())
    return pa.table({"key": keys.flatten(), "image_size": values})


def footers(units: pa.Table) -> Iterator[UnitFooter]:
    """Yield the footers of units (``UNIT`` without keys)."""
    for row in units.to_pylist():
        yield UnitFooter(
            unit_id=row["unit_id"],
            run_id=row["run_id"],
            errors=json.loads(row["errors_json"] or "[]"),
            failed_at_ms=row["failed_at_ms"],
            is_abandoned=row["is_abandoned"],
            image_sizes=row["image_sizes"],
        )


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    if isinstance(column, pa.ChunkedArray):
        return column.chunks or [pa.array([], column.type)]
    return [column]
