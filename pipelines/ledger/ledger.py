"""What is made and what failed, read from the committed units and from nothing else.

There is no state beside the data: a key is made if a committed unit holds its image; its attempts
are counted in the units' footers. Delete a unit's file and its rows are made again. ``index/``
holds copies, see ``index_files``.

A unit that is damaged may hold any rows, so a run must not make rows without it (``read_ledger``
refuses). A command that only looks can name it and use the rest (``survey``).

Memory holds a line a unit. Keys stay in the index, and on disk those that were read from units.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import Any

import numpy as np
import pyarrow as pa

from clora_core.recipe.errors import CloraError
from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from manifests.tables.text_numbers import TextPlaces
from manifests.text.wording import first_lines
from pipelines.ledger.counts import KeyCounts, content_digest, count_keys
from pipelines.ledger.index_files import INDEX_FOLDER, IndexFile, index_tables
from pipelines.ledger.last_failures import last_failures
from pipelines.ledger.unit_listing import UnitListing
from pipelines.ledger.unit_rows import (
    MAX_KEYS,
    NARROW,
    UNIT,
    Beside,
    file_identity,
    footers,
    key_table,
    read_unit_rows,
)
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import UnitFooter, rows_name
from pipelines.units.output_files import DamagedFileError

_MAX_NAMED = 20
_MAX_HELD_BYTES = 8 * 1024**2
_FOOTER = tuple(name for name in UNIT.names if name not in ("file_identity", "keys"))
_NARROW = pa.schema([UNIT.field(name) for name in NARROW if name != "file_identity"])


class LedgerError(CloraError):
    """Committed units are damaged; the message names each and the way out."""


class UnitsChangedError(Exception):
    """Units that were read before are other files now, or gone."""


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """What the ledger knows of a row that was tried in vain: how often, and last in which unit."""

    attempts: int
    unit_id: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Ledger:
    """The committed units of one output, as they were when it was read.

    Attributes:
        storage: The output.
        units: unit_id, num_rows, num_errors and is_abandoned of every unit: those of the indexes
            first, in their order.
        indexes: Where units are indexed.
        read: The other units, as they were read from their files.
        unused_indexes: Indexes that say nothing of any unit as it is now.
        has_versions: The store says which version of each unit is there, so units can be indexed.
        damaged: Files among the units that cannot be read; all else is without their rows.
    """

    storage: Storage
    units: pa.Table
    indexes: tuple[IndexFile, ...]
    read: Spool
    unused_indexes: tuple[str, ...] = ()
    has_versions: bool = True
    damaged: tuple[DamagedFileError, ...] = ()

    def unit_tables(self, columns: Sequence[str] = UNIT.names) -> Iterator[pa.Table]:
        """Yield columns of ``unit_rows.UNIT``, in the order of ``units``, some units at a time.

        Units of an index that is gone by now, or damaged, are read from their files.

        Raises:
            DamagedFileError: One of these is damaged.
        """
        first = 0
        for index in self.indexes:
            num_done = 0
            try:
                for table in index.tables(columns):
                    yield table
                    num_done += len(table)
            except (FileNotFoundError, DamagedFileError):
                ids = self.units["unit_id"].slice(first + num_done, index.num_units - num_done)
                yield from self._read_again(ids, columns)
            first += index.num_units
        for table in self.read.tables():
            yield table.select(list(columns))

    def _read_again(self, unit_ids: pa.ChunkedArray, columns: Sequence[str]) -> Iterator[pa.Table]:
        # Nothing says that they are the files that were indexed, so they have no identity.
        names = (
            (rows_name(unit_id), file_identity(0, ""))
            for chunk in unit_ids.chunks
            for unit_id in chunk.to_pylist()
        )
        for table in read_unit_rows(self.storage, names):
            yield table.select(list(columns))

    def made_tables(self) -> Iterator[pa.Table]:
        """Yield key and image_size (bytes; null if unknown) of every image, some at a time.

        A key that is doubled is there as often. Errors as of ``unit_tables``.
        """
        for units in self.unit_tables(("keys", "image_sizes")):
            table = key_table(units)
            for start in range(0, len(table), MAX_KEYS):
                yield table.slice(start, MAX_KEYS)

    @cached_property
    def num_made(self) -> int:
        """Keys with an image."""
        return self._counts.num_distinct

    @cached_property
    def num_doubled(self) -> int:
        """Images beyond the first of a key. 0, or the promise is broken."""
        return self._counts.num_keys - self._counts.num_distinct

    @cached_property
    def _counts(self) -> KeyCounts:
        return count_keys(self.made_tables)

    @cached_property
    def num_errors(self) -> int:
        """Tries that gave no image, of rows that were made later as well."""
        return arrow.sum(self.units["num_errors"]).as_py() or 0

    @cached_property
    def failures(self) -> pa.Table:
        """The last failure of each row without an image, as ``schemas.ERRORS``, by key."""
        if not self.num_errors:
            return last_failures((), self.made_tables)
        return last_failures(self.footers(), self.made_tables)

    @cached_property
    def failed(self) -> Mapping[str, FailedRow]:
        """Rows that were tried and have no image, by key."""
        names = ("key", "attempt", "unit_id")
        columns = (self.failures[name].to_pylist() for name in names)
        return {
            key: FailedRow(attempts=attempts, unit_id=unit_id)
            for key, attempts, unit_id in zip(*columns, strict=True)
        }

    @cached_property
    def last_errors(self) -> Mapping[str, Mapping[str, Any]]:
        """The last failure of each of them, by key: a row of ``failures`` without the time."""
        rows = self.failures.drop_columns(["failed_at"]).to_pylist()
        return {row["key"]: row for row in rows}

    def footers(self) -> Iterator[UnitFooter]:
        """Yield the footer of every unit that names failures."""
        if self.num_errors:
            for table in self.unit_tables(_FOOTER):
                yield from footers(table.filter(arrow.greater(table["num_errors"], 0)))

    def is_committed(self, unit_ids: pa.Array) -> pa.Array:
        """Return whether each unit (string) is committed, or abandoned."""
        return pa.array(self._places.places(unit_ids) >= 0, pa.bool_())

    @cached_property
    def _places(self) -> TextPlaces:
        return TextPlaces(
            pa.concat_arrays([pa.array([], pa.string()), *self.units["unit_id"].chunks])
        )

    @cached_property
    def abandoned(self) -> frozenset[str]:
        """Units that hold nothing, so that nobody commits them; see ``seal``."""
        return frozenset(self.units.filter(self.units["is_abandoned"])["unit_id"].to_pylist())

    @cached_property
    def content_sha256(self) -> str:
        """Another one whenever a unit with rows or failures is added, replaced or set aside."""
        return content_digest(
            self.unit_tables(("unit_id", "run_id", "failed_at_ms", "is_abandoned", "image_sizes"))
        )

    @cached_property
    def unit_ids(self) -> frozenset[str]:
        """Ids of all units; for small outputs."""
        return frozenset(self.units["unit_id"].to_pylist())

    @cached_property
    def made(self) -> frozenset[str]:
        """Keys with an image; for small outputs."""
        return frozenset(key for table in self.made_tables() for key in table["key"].to_pylist())

    @cached_property
    def image_sizes(self) -> Mapping[str, int]:
        """Bytes of the image, by key, where they are known; for small outputs."""
        sizes: dict[str, int] = {}
        for table in self.made_tables():
            columns = (table[name].to_pylist() for name in table.column_names)
            for key, size in zip(*columns, strict=True):
                if size is not None:
                    sizes[key] = max(size, sizes.get(key, 0))
        return sizes


def read_ledger(storage: Storage) -> Ledger:
    """Return the ledger of an output, empty if there is nothing yet.

    Raises:
        LedgerError: Units are damaged, so what is made cannot be known.
    """
    ledger = survey(storage)
    if ledger.damaged:
        raise LedgerError(_sentence(storage, ledger.damaged))
    return ledger


def survey(
    storage: Storage, beside: Beside[Any] | None = None, known: Iterable[pa.Table] = ()
) -> Ledger:
    """Return the ledger of an output without its damaged units, which are named in it.

    Args:
        storage: The output.
        beside: Reads more of each unit whose file is read: of those in no index.
        known: Units (``UNIT``) that were read before and are not read again.

    Raises:
        UnitsChangedError: A unit of ``known`` is another file now, or gone.
    """
    # Units are listed last: what an index says of a unit that is gone must not count.
    names = storage.list(INDEX_FOLDER, ".parquet")
    listing = UnitListing(storage)
    units = [_NARROW.empty_table()]
    indexes: list[IndexFile] = []
    unused: list[str] = []
    for name in names:
        try:
            index, narrow = _indexed(storage, name, listing)
        except (FileNotFoundError, DamagedFileError):
            # ``clora verify`` says so.
            continue
        if index.num_units:
            indexes.append(index)
            units += narrow
            for table in narrow:
                listing.found(table["unit_id"].combine_chunks())
        else:
            unused.append(name)
    damaged: list[DamagedFileError] = []
    read = Spool(UNIT, max_held_bytes=_MAX_HELD_BYTES, what="the committed rows")
    for table in known:
        if len(listing.current_rows(table)) < len(table):
            raise UnitsChangedError(f"units in {storage.uri} changed while they were read")
        listing.found(table["unit_id"].combine_chunks())
        units.append(table.select(_NARROW.names))
        read.add(table)
    for table in read_unit_rows(storage, listing.left(), skip=damaged.append, beside=beside):
        units.append(table.select(_NARROW.names))
        read.add(table)
    return Ledger(
        storage=storage,
        units=pa.concat_tables(units).combine_chunks(),
        indexes=tuple(indexes),
        read=read,
        unused_indexes=tuple(unused),
        has_versions=listing.has_versions,
        damaged=tuple(damaged),
    )


def _indexed(storage: Storage, name: str, listing: UnitListing) -> tuple[IndexFile, list[pa.Table]]:
    """Return the rows of an index that count, as numbers and as units."""
    units: list[pa.Table] = []
    rows: list[np.ndarray] = []
    num_rows = num_keys = 0
    for table in index_tables(storage, name, NARROW):
        current = listing.current_rows(table)
        num_rows += len(table)
        rows.append(current)
        kept = table.take(pa.array(current)).select(_NARROW.names)
        num_keys += arrow.sum(kept["num_rows"]).as_py() or 0
        if len(kept):
            units.append(kept)
    return IndexFile(
        storage=storage,
        name=name,
        rows=tuple(rows),
        num_keys=num_keys,
        num_dead=num_rows - sum(map(len, rows)),
    ), units


def _sentence(storage: Storage, damaged: Sequence[DamagedFileError]) -> str:
    """Return every damaged unit, a line each, and the way out."""
    lines = first_lines([f"{error.name}: {error.reason}" for error in damaged], _MAX_NAMED)
    return "\n".join(
        [
            f"{len(damaged):,} committed unit(s) in {storage.uri} are damaged:",
            *(f"  {line}" for line in lines),
            f"`clora verify {quote(storage.uri)} --repair` sets them aside, and the same command "
            "then makes their rows again",
        ]
    )
