"""``clora verify``: whether an output keeps its promise, asked of every byte of it."""

import sys

from manifests.locations import absolute
from pipelines.storage import Storage, StorageError, open_storage
from pipelines.verify import nested_outputs, verify_units

__all__ = ["verify"]

HOLDS = 0
BROKEN = 1
MAX_LISTED = 20


def verify(output: str) -> int:
    """Print what is wrong with ``output`` and its references; return 0 if nothing is, else 1."""
    try:
        storage = open_storage(absolute(output, beside="."))
        outputs = [storage, *(open_storage(f"{storage.uri}/{n}") for n in nested_outputs(storage))]
        counts = [_verify(each) for each in outputs]
    except StorageError as error:
        print(error, file=sys.stderr)
        return BROKEN
    num_units, num_rows, num_problems = (sum(column) for column in zip(*counts, strict=True))
    if not num_units:
        print(f"{output}: nothing is committed here", file=sys.stderr)
        return BROKEN
    print(
        f"{num_rows:,} committed rows in {num_units:,} units, {num_problems:,} problem(s)"
        + ("" if num_problems else ": every row has its image, once, unchanged")
    )
    return BROKEN if num_problems else HOLDS


def _verify(storage: Storage) -> tuple[int, int, int]:
    """Print the first problems of one output; return its units, rows and problems."""
    num_units = num_rows = num_problems = 0
    for check in verify_units(storage):
        num_units += 1
        num_rows += check.num_rows
        for problem in check.problems:
            num_problems += 1
            if num_problems <= MAX_LISTED:
                print(f"{storage.uri}: {problem}", file=sys.stderr)
    if num_problems > MAX_LISTED:
        print(f"... and {num_problems - MAX_LISTED:,} more", file=sys.stderr)
    return num_units, num_rows, num_problems
