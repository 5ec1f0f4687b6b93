"""When units are indexed, and which indexes become one.

A reader should open few files, and no row should be written often. So units that are in no index
make a new one once they are many, and take along every index that is not larger than what is
written anyway: a row is written again only into a file of twice the size, until its file is full.
"""

from collections.abc import Collection
from dataclasses import replace

import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from pipelines.ledger.index_files import MAX_FILE_KEYS, IndexFile, write_index_files
from pipelines.ledger.ledger import Ledger
from pipelines.units.output_files import DamagedFileError

MIN_UNITS = 256
"""Fewer units are read from their files each time, which takes a second at most."""


def update_index(ledger: Ledger) -> Ledger:
    """Index the units of a ledger that are in no index, if they are many.

    New files are durable before those that they replace are deleted; where a kill leaves both, a
    unit counts once.

    Returns:
        The same ledger, read from the files that are there now.
    """
    if is_indexed(ledger):
        return ledger
    names = _merged(ledger)
    old, left = _parted(ledger, names)
    try:
        written = write_index_files(ledger.storage, old.unit_tables())
    except DamagedFileError:
        # Of a unit that was to be read again: a run that needs its rows says so.
        return ledger
    if sum(index.num_units for index in written) != len(old.units):
        # A unit was set aside meanwhile. What was written is good, and what was there stays.
        return ledger
    for name in (*sorted(names), *ledger.unused_indexes):
        ledger.storage.delete(name)
    return replace(
        ledger,
        units=pa.concat_tables([left.units, old.units]).combine_chunks(),
        indexes=(*left.indexes, *written),
        read=Spool(ledger.read.schema),
        unused_indexes=(),
    )


def is_indexed(ledger: Ledger) -> bool:
    """Return whether an index would save little, or cannot be made."""
    return ledger.read.num_rows < MIN_UNITS or not ledger.has_versions


def _merged(ledger: Ledger) -> frozenset[str]:
    """Return the indexes that are written again together with what is in none."""
    num_keys = arrow.sum(ledger.units["num_rows"]).as_py() or 0
    indexed = sum(map(_weight, ledger.indexes))
    weight = num_keys + len(ledger.units) - indexed
    merged: set[str] = set()
    for index in sorted(ledger.indexes, key=_weight):
        is_small = _weight(index) <= weight and index.num_keys < MAX_FILE_KEYS
        if is_small or index.num_dead > index.num_units:
            merged.add(index.name)
            weight += _weight(index)
    return frozenset(merged)


def _weight(index: IndexFile) -> int:
    """Return what writing an index again costs."""
    return index.num_keys + index.num_units


def _parted(ledger: Ledger, names: Collection[str]) -> tuple[Ledger, Ledger]:
    """Return the ledger of what is written, and of the indexes that stay."""
    units: dict[bool, list[pa.Table]] = {True: [], False: [ledger.units.slice(0, 0)]}
    indexes: dict[bool, list[IndexFile]] = {True: [], False: []}
    first = 0
    for index in ledger.indexes:
        is_written = index.name in names
        units[is_written].append(ledger.units.slice(first, index.num_units))
        indexes[is_written].append(index)
        first += index.num_units
    units[True].append(ledger.units.slice(first))
    old, left = (
        replace(ledger, units=pa.concat_tables(units[side]), indexes=tuple(indexes[side]))
        for side in (True, False)
    )
    return old, replace(left, read=Spool(ledger.read.schema))
