"""The failures of an output: the last of each row, and the tables of them that people read."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from pipelines.units.committed_unit import UnitFooter, error_table
from pipelines.units.schemas import ERRORS

_UNITS_AT_ONCE = 256


def last_failures(
    footers: Iterable[UnitFooter], made_tables: Callable[[], Iterator[pa.Table]]
) -> pa.Table:
    """Return the last failure of each key that is not made, as ``schemas.ERRORS``, by key.

    Args:
        footers: Of units that name failures.
        made_tables: Yields tables with the keys that are made; taken if anything failed.
    """
    left, tables = iter(footers), [ERRORS.empty_table()]
    while some := list(islice(left, _UNITS_AT_ONCE)):
        tables.append(pa.concat_tables([_errors_of(footer) for footer in some]).combine_chunks())
    every = pa.concat_tables(tables)
    if not len(every):
        return every
    order = arrow.sort_indices(
        every.select(["key", "attempt", "unit_id"]),
        sort_keys=[(name, "ascending") for name in ("key", "attempt", "unit_id")],
    )
    keys = every["key"].take(order)
    next_keys = pa.chunked_array([*keys.slice(1).chunks, pa.nulls(1, pa.string())])
    is_last = arrow.fill_null(arrow.not_equal(keys, next_keys), True)
    last = every.take(order.filter(is_last)).combine_chunks()
    is_open = np.ones(len(last), bool)
    wanted = last["key"].combine_chunks()
    for table in made_tables():
        places = arrow.index_in(table["key"], value_set=wanted).drop_null()
        is_open[places.to_numpy()] = False
    return last.filter(pa.array(is_open))


def _errors_of(footer: UnitFooter) -> pa.Table:
    """Return a unit's failures, under the name that it is committed by."""
    ids = pa.array([footer.unit_id] * len(footer.errors), pa.string())
    return error_table(footer).set_column(
        ERRORS.get_field_index("unit_id"), ERRORS.field("unit_id"), ids
    )
