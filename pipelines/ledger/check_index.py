"""Whether an index says of units what their files say."""

from collections.abc import Iterator

import pyarrow as pa

from pipelines.ledger.index_files import index_tables
from pipelines.ledger.unit_listing import UnitListing
from pipelines.ledger.unit_rows import UNIT, read_unit_rows
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import rows_name
from pipelines.units.output_files import DamagedFileError


def check_index(storage: Storage, name: str) -> None:
    """Read an index and the units that it speaks of.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is damaged, or a row that counts says something else than its unit.
    """
    listing = UnitListing(storage)
    for table in index_tables(storage, name, UNIT.names):
        said = table.take(pa.array(listing.current_rows(table)))
        ids, identities = (said[name].to_pylist() for name in ("unit_id", "file_identity"))
        names = zip(map(rows_name, ids), identities, strict=True)
        # A damaged unit is named where units are verified.
        held = {
            row["unit_id"]: row
            for units in read_unit_rows(storage, names, skip=lambda _damage: None)
            for row in units.to_pylist()
        }
        for row in _other_rows(said, held):
            raise DamagedFileError(
                storage.uri, name, f"says something else of unit {row} than its file"
            )


def _other_rows(said: pa.Table, held: dict[str, dict[str, object]]) -> Iterator[str]:
    for row in said.to_pylist():
        if row["unit_id"] in held and held[row["unit_id"]] != row:
            yield row["unit_id"]
