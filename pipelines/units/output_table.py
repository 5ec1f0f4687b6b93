"""The committed rows of an output as one table, without their images."""

import json
from collections.abc import Callable, Sequence

import pyarrow as pa

from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import read_units
from pipelines.units.output_files import DamagedFileError, naming_damage, read_table
from pipelines.units.schemas import ADDED_COLUMNS, ROWS

_JSON_COLUMNS = ("sampler_json", "carried_json", "versions_json")


def read_output_rows(
    storage: Storage,
    columns: Sequence[str],
    *,
    skip: Callable[[DamagedFileError], None] | None = None,
    lacks: Callable[[str], None] | None = None,
) -> pa.Table:
    """Return ``columns`` (of ``schemas.ROWS``) of all committed rows, in no order to rely on.

    Columns of ``schemas.ADDED_COLUMNS`` are empty for rows of releases that did not have them.

    Args:
        storage: The output.
        columns: Names.
        skip: Gets each damaged unit, whose rows are left out; None raises the first.
        lacks: Gets the names of ``columns`` that a unit of an earlier release does not have.

    Raises:
        DamagedFileError: A unit is damaged, and there is no ``skip``.
    """
    schema = pa.schema([ROWS.field(name) for name in columns])

    def read(name: str) -> pa.Table:
        with naming_damage(storage, name):
            rows = read_table(storage, name, columns)
            for index, field in enumerate(schema):
                if field.name in ADDED_COLUMNS and field.name not in rows.column_names:
                    if lacks is not None:
                        lacks(field.name)
                    rows = rows.add_column(index, field, pa.nulls(rows.num_rows, field.type))
            return _checked(rows.cast(schema))

    return pa.concat_tables([schema.empty_table(), *read_units(storage, read, skip=skip)])


def _checked(rows: pa.Table) -> pa.Table:
    """Return the rows; ValueError if a column of JSON holds none, which old files do not notice."""
    for name in _JSON_COLUMNS:
        if name in rows.column_names:
            for text in rows[name].unique().to_pylist():
                json.loads(text or "null")
    return rows
