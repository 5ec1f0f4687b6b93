"""The sum that must come out: rows = made + failed + skipped, counted in the ledger.

Receipts say what a run saw; the ledger says what is there. The account is taken from the ledger, so
what another run committed meanwhile counts as made, and a row that is nowhere is named as such.
Keys are dealt by their hash and compared one part at a time.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from manifests.tables.text_numbers import deal, dealing_spool
from pipelines.ledger.ledger import Ledger

_KEY = pa.schema([("key", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where the rows of a manifest are.

    Attributes:
        num_rows: Rows of the manifest.
        num_made: Made since the run began.
        num_failed: Without an image, with a reason.
        num_given_up: Those of them that failed too often to be tried in this run.
        num_already_made: Made before the run began.
        num_duplicates: Rows equal to an earlier one.
        num_missing: None of these; 0 unless the run was cut short.
        num_doubled: Images beyond the first of a key; 0, or something is broken.
    """

    num_rows: int
    num_made: int
    num_failed: int
    num_given_up: int
    num_already_made: int
    num_duplicates: int
    num_missing: int
    num_doubled: int

    @property
    def num_skipped(self) -> int:
        """Rows that needed no work: already made, or equal to another row."""
        return self.num_already_made + self.num_duplicates

    @property
    def is_complete(self) -> bool:
        """Every row has its image, once."""
        return not (self.num_failed or self.num_missing or self.num_doubled)


def take_account(
    keys: Iterable[pa.Table], *, before: Ledger, after: Ledger, given_up: Iterable[str] = ()
) -> Account:
    """Return where the rows with ``keys`` (of a whole manifest, duplicates and all) are.

    Args:
        keys: Tables with a column ``key``, one row per manifest row.
        before: The ledger that the plan was made from.
        after: The ledger now.
        given_up: Keys that the plan left out because they failed too often.
    """
    listed = _dealt(keys)
    was_made = _dealt(before.made_tables())
    is_made = was_made if after is before else _dealt(after.made_tables())
    failures = after.failures["key"].combine_chunks()
    given = pa.array(list(given_up), pa.string())
    sums: Counter[str] = Counter()
    for partition in listed.filled():
        distinct = listed.partition(partition)["key"].combine_chunks().unique()
        already = _isin(distinct, was_made.partition(partition)["key"])
        made = (
            already if is_made is was_made else _isin(distinct, is_made.partition(partition)["key"])
        )
        failed = _isin(distinct, failures)
        sums["distinct"] += len(distinct)
        sums["already"] += int(already.sum())
        sums["made"] += int((made & ~already).sum())
        sums["failed"] += int(failed.sum())
        sums["given up"] += int((failed & _isin(distinct, given)).sum())
        sums["missing"] += int((~made & ~failed).sum())
    return Account(
        num_rows=listed.num_rows,
        num_made=sums["made"],
        num_failed=sums["failed"],
        num_given_up=sums["given up"],
        num_already_made=sums["already"],
        num_duplicates=listed.num_rows - sums["distinct"],
        num_missing=sums["missing"],
        num_doubled=after.num_doubled,
    )


def failures_among(keys: Iterable[pa.Table], failures: pa.Table) -> pa.Table:
    """Return the rows of ``failures`` whose key is in one of the tables, in their order."""
    is_wanted = np.zeros(len(failures), bool)
    for table in keys if len(failures) else ():
        is_wanted |= _isin(failures["key"].combine_chunks(), table["key"])
    return failures.filter(pa.array(is_wanted))


def _dealt(tables: Iterable[pa.Table]) -> Spool:
    spool = dealing_spool(_KEY, "the keys of the manifest and of committed rows")
    for table in tables:
        deal(spool, table.select(["key"]).cast(_KEY))
    return spool


def _isin(keys: pa.Array, among: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return whether each key is among others [key]."""
    return np.asarray(arrow.is_in(keys, value_set=among), bool)
