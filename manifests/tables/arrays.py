"""Columns of several chunks as one array."""

from typing import Any

import pyarrow as pa

from manifests.tables.arrow_functions import arrow


def one_array(column: pa.ChunkedArray | pa.Array) -> Any:
    """Return a column as one array; of dictionaries that differ, one that is in all its rows."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return column.combine_chunks()


def one_chunk(table: pa.Table) -> pa.Table:
    """Return a table whose columns have one chunk each."""
    return pa.table([one_array(column) for column in table.columns], schema=table.schema)


def compacted(table: pa.Table) -> pa.Table:
    """Return a table in one chunk, whose dictionaries hold what its rows use and no more."""
    columns = [one_array(column) for column in table.columns]
    return pa.table(
        [
            _compacted(column) if isinstance(column, pa.DictionaryArray) else column
            for column in columns
        ],
        schema=table.schema,
    )


def _compacted(column: pa.DictionaryArray) -> pa.DictionaryArray:
    used = column.indices.unique().drop_null()
    if len(used) == len(column.dictionary):
        return column
    places = arrow.index_in(column.indices, value_set=used)
    kind = column.type
    return pa.DictionaryArray.from_arrays(
        places.cast(kind.index_type), column.dictionary.take(used)
    )
