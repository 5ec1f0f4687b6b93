"""The sum that must come out: rows = made + failed + skipped, counted in the ledger.

Receipts say what a run saw; the ledger says what is there. The account is taken from the ledger, so
what another run committed meanwhile counts as made, and a row that is nowhere is named as such.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.ledger.ledger import Ledger


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
    keys: Iterable[str], *, before: Ledger, after: Ledger, given_up: Iterable[str] = ()
) -> Account:
    """Return where the rows with ``keys`` (of a whole manifest, duplicates and all) are.

    Args:
        keys: One per manifest row.
        before: The ledger that the plan was made from.
        after: The ledger now.
        given_up: Keys that the plan left out because they failed too often.
    """
    listed = list(keys)
    distinct = set(listed)
    already = distinct & before.made
    made = (distinct & after.made) - already
    failed = {key for key in distinct if key in after.failed}
    return Account(
        num_rows=len(listed),
        num_made=len(made),
        num_failed=len(failed),
        num_given_up=len(failed.intersection(given_up)),
        num_already_made=len(already),
        num_duplicates=len(listed) - len(distinct),
        num_missing=len(distinct - after.made - failed),
        num_doubled=after.num_doubled,
    )
