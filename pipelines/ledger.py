"""What is made and what failed, read from the committed units and from nothing else.

There is no state beside the data: a key is made if a committed unit holds its image; its attempts
are counted in the units' footers. Delete a unit's file and its rows are made again.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from pipelines.committed_unit import (
    ERRORS_FOLDER,
    ROWS_FOLDER,
    UnitFooter,
    decode_footer,
    encode_errors,
    errors_name,
    unit_id_of,
)
from pipelines.plan import FailedRow
from pipelines.storage import Storage

__all__ = ["Ledger", "LedgerError", "read_ledger", "read_unit", "restore_errors"]

_NUM_READERS = 16


class LedgerError(Exception):
    """A file among the committed units is not one; the message names it and the way out."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The committed units of one output.

    Attributes:
        made: Keys with an image.
        failed: Rows that were tried and have none.
        last_errors: The last failure of each of them, as a row of ``schemas.ERRORS``.
        footers: Every unit's footer that tells of failures.
        unit_ids: Of all committed units.
        abandoned: Those of them that hold nothing, so that nobody commits them; see ``seal``.
        num_doubled: Images beyond the first of a key. 0, or the promise is broken.
    """

    made: frozenset[str]
    failed: Mapping[str, FailedRow]
    last_errors: Mapping[str, Mapping[str, Any]]
    footers: tuple[UnitFooter, ...]
    unit_ids: frozenset[str]
    abandoned: frozenset[str]
    num_doubled: int


def read_ledger(storage: Storage) -> Ledger:
    """Return the ledger of an output, empty if there is nothing yet.

    Raises:
        LedgerError: A file in ``rows/`` is not a unit.
    """
    names = storage.list(ROWS_FOLDER, ".parquet")
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        units = list(pool.map(partial(read_unit, storage), names))
    num_rows = sum(len(keys) for keys, _ in units)
    made = frozenset(key for keys, _ in units for key in keys)
    footers = tuple(footer for _, footer in units if footer.errors)
    failed: dict[str, FailedRow] = {}
    last_errors: dict[str, Mapping[str, Any]] = {}
    for footer, error in _in_order_of_attempts(footers):
        if error["key"] not in made:
            attempts = int(error["attempt"])
            failed[error["key"]] = FailedRow(attempts=attempts, unit_id=footer.unit_id)
            last_errors[error["key"]] = error
    return Ledger(
        made=made,
        failed=failed,
        last_errors=last_errors,
        footers=footers,
        unit_ids=frozenset(footer.unit_id for _, footer in units),
        abandoned=frozenset(footer.unit_id for _, footer in units if footer.is_abandoned),
        num_doubled=num_rows - len(made),
    )


def read_unit(storage: Storage, name: str) -> tuple[list[str], UnitFooter]:
    """Return the keys and the footer of a committed unit, without reading its images."""
    try:
        with storage.open(name) as source, pq.ParquetFile(source) as file:
            footer = decode_footer(file.metadata)
            keys: list[str] = []
            if file.num_row_groups:
                keys = file.read(columns=["key"])["key"].to_pylist()
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise LedgerError(
            f"{storage.uri}/{name} is not a unit of this output ({error}); move it elsewhere"
        ) from error
    return keys, footer


def restore_errors(storage: Storage, ledger: Ledger) -> int:
    """Write the tables of failures that a kill kept from being written; return how many."""
    present = {unit_id_of(name) for name in storage.list(ERRORS_FOLDER, ".parquet")}
    missing = [footer for footer in ledger.footers if footer.unit_id not in present]
    for footer in missing:
        storage.put(errors_name(footer.unit_id), encode_errors(footer))
    return len(missing)


def _in_order_of_attempts(
    footers: Iterable[UnitFooter],
) -> list[tuple[UnitFooter, Mapping[str, Any]]]:
    pairs = [(footer, error) for footer in footers for error in footer.errors]
    return sorted(pairs, key=lambda pair: (pair[1]["attempt"], pair[0].unit_id))
