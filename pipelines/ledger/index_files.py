"""Indexes of committed units: what many small files say, in a few large ones.

A unit's own file is the truth. A row of an index counts only while that file is listed with the
size and version that it had when the row was read from it. Otherwise the unit is read itself, so an
index that is old, damaged or missing costs time and nothing else.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from pipelines.ledger.unit_rows import UNIT, regrouped
from pipelines.storage.storage import Storage
from pipelines.units.output_files import open_parquet, parquet_parts

INDEX_FOLDER = "index"

MAX_FILE_KEYS = 1_000_000
"""After so many keys an index file is full, and another one is begun."""

_REPEATED = ("run_id",)


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """The rows of one index that count.

    Attributes:
        storage: The output.
        name: The file.
        rows: Numbers of the rows that count, by row group.
        num_keys: Of those rows.
        num_dead: Rows that do not count.
    """

    storage: Storage
    name: str
    rows: tuple[np.ndarray, ...]
    num_keys: int
    num_dead: int

    @property
    def num_units(self) -> int:
        """Rows that count."""
        return sum(map(len, self.rows))

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of ``UNIT`` of the rows that count, in order.

        Raises:
            FileNotFoundError: Another run wrote the file's rows into another one.
            DamagedFileError: It is damaged.
        """
        for table, rows in zip(
            index_tables(self.storage, self.name, columns), self.rows, strict=True
        ):
            if len(rows) == len(table):
                yield table
            elif len(rows):
                yield table.take(pa.array(rows))


def index_tables(storage: Storage, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of ``UNIT`` of an index, a row group at a time.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is damaged.
    """
    schema = pa.schema([UNIT.field(column) for column in columns])
    with open_parquet(storage, name) as file:
        for group in range(file.num_row_groups):
            # Only what is asked for, and what it is checked by.
            names = {*columns, "num_rows", "num_errors"}
            table = file.read_row_group(group, columns=sorted(names), use_threads=False)
            _check(table)
            yield table.select(list(columns)).cast(schema)


def write_index_files(storage: Storage, tables: Iterator[pa.Table]) -> list[IndexFile]:
    """Write units (``UNIT``) into new index files, each durable before the next is begun."""
    groups = regrouped(tables)
    written: list[IndexFile] = []
    for first in groups:
        name = f"{INDEX_FOLDER}/{secrets.token_hex(16)}.parquet"
        lengths: list[int] = []
        file = _File(lengths)
        parts = parquet_parts(name, file.filled(chain([first], groups)), UNIT, dictionary=_REPEATED)
        storage.put_parts(name, parts)
        written.append(
            IndexFile(
                storage=storage,
                name=name,
                rows=tuple(np.arange(length, dtype=np.int32) for length in lengths),
                num_keys=file.num_keys,
                num_dead=0,
            )
        )
    return written


class _File:
    """Takes tables until a file is full."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths
        self.num_keys = 0

    def filled(self, groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for group in groups:
            self._lengths.append(len(group))
            self.num_keys += arrow.sum(group["num_rows"]).as_py() or 0
            yield group
            if self.num_keys >= MAX_FILE_KEYS:
                return


def _check(table: pa.Table) -> None:
    """Raise ValueError if columns of a row group do not fit one another."""
    for name in table.column_names:
        if name != "errors_json" and table[name].null_count:
            raise ValueError(f"no {name}")
    if "keys" in table.column_names:
        lengths = arrow.list_value_length(table["keys"])
        if not lengths.cast(pa.int32()).equals(table["num_rows"]):
            raise ValueError("other keys than there are rows")
        if any(chunk.flatten().null_count for chunk in table["keys"].chunks):
            raise ValueError("a row without a key")
    if "errors_json" in table.column_names:
        is_failed = arrow.greater(table["num_errors"], 0)
        if not is_failed.equals(arrow.is_valid(table["errors_json"])):
            raise ValueError("other failures than are counted")
