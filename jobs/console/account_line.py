"""The last line of a run: counts that add up to the manifest, and where to look."""

from manifests.places.place_names import joined
from pipelines.ledger.account import Account


def account_line(account: Account, output: str, *, only_failed: bool = False) -> str:
    """Return e.g. ``118 made, 2 failed (see out/errors), 40 skipped (already made)``.

    Args:
        account: Of the run.
        output: Where it wrote.
        only_failed: It was ``clora retry``, which leaves rows that were never tried.
    """
    parts = [f"{account.num_made:,} made", _failed(account, output), _skipped(account)]
    if account.num_missing:
        way_out = "`clora compose` makes them" if only_failed else "run the same command again"
        parts.append(f"{account.num_missing:,} not made yet ({way_out})")
    if account.num_doubled:
        parts.append(
            f"{account.num_doubled:,} doubled, which must not be (see {joined(output, 'rows')})"
        )
    return ", ".join(parts)


def _failed(account: Account, output: str) -> str:
    if not account.num_failed:
        return "0 failed"
    given_up = ""
    if account.num_given_up:
        given_up = f"; {account.num_given_up:,} failed too often, `clora retry` tries them again"
    return f"{account.num_failed:,} failed (see {joined(output, 'errors')}{given_up})"


def _skipped(account: Account) -> str:
    if not account.num_skipped:
        return "0 skipped"
    if not account.num_duplicates:
        return f"{account.num_skipped:,} skipped (already made)"
    if not account.num_already_made:
        return f"{account.num_skipped:,} skipped (equal to another row)"
    return (
        f"{account.num_skipped:,} skipped ({account.num_already_made:,} already made, "
        f"{account.num_duplicates:,} equal to another row)"
    )
