"""Tables of failures in ``errors/``: copies for people of what units say."""

from itertools import islice

from pipelines.ledger.ledger import Ledger
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import ERRORS_FOLDER, encode_errors, errors_name

_UNITS_AT_ONCE = 256


def restore_errors(storage: Storage, ledger: Ledger) -> int:
    """Write the tables of failures that are missing or of another size; return how many."""
    if not ledger.num_errors:
        return 0
    present = dict(storage.sizes(ERRORS_FOLDER))
    num_written, left = 0, ledger.footers()
    while some := list(islice(left, _UNITS_AT_ONCE)):
        tables = {errors_name(footer.unit_id): encode_errors(footer) for footer in some}
        wanted = {name: table for name, table in tables.items() if present.get(name) != len(table)}
        storage.put_all(wanted)
        num_written += len(wanted)
    return num_written
