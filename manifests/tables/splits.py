"""Parts of a manifest that can be read apart, on any machine that reaches its files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError, StoreAwayError
from manifests.tables.guarded_parquet import row_group_sizes
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.tables.readers import format_of, manifest_files, read_tables
from manifests.text.problems import Problem

SPLIT_ROWS = 65_536
"""Rows of a split, at least, as far as a file has as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A whole text file, or some row groups of a Parquet file.

    Attributes:
        file: Absolute path or URI.
        first_row_group: Of those that are read.
        num_row_groups: How many; None for the whole file.
        first_line: Row number of the first row.
    """

    file: str
    first_row_group: int = 0
    num_row_groups: int | None = None
    first_line: int = 1


def manifest_splits(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> list[Split | Problem]:
    """Return the parts of a manifest in order, and a problem for each file that has none.

    Args:
        uri: A file, a folder or a glob, as an absolute path or URI.
        allowed: Where they may be.
    """
    found: list[Split | Problem] = []
    for file in manifest_files(uri, allowed=allowed):
        if isinstance(file, Problem) or format_of(file) != "parquet":
            found.append(file if isinstance(file, Problem) else Split(file=file))
            continue
        try:
            found += _of_groups(file, row_group_sizes(file))
        except LocationError as error:
            found.append(Problem(place=file, field="(file)", problem=str(error)))
    return found


def count_rows(uri: str, *, at_most: int) -> int:
    """Return how many rows a manifest's Parquet files have, as they say, at most ``at_most``.

    Text files, and what cannot be read, count for none.
    """
    count = 0
    try:
        for file in manifest_files(uri):
            if isinstance(file, str) and format_of(file) == "parquet":
                count += sum(row_group_sizes(file))
            if count >= at_most:
                return at_most
    except (LocationError, StoreAwayError):
        return count
    return count


def split_tables(split: Split) -> Iterator[RawTable | Sequence[RawRow | Problem]]:
    """Return the rows of a part as they come; see ``readers.read_tables``.

    Raises:
        LocationError: The file cannot be read; rows before the damage come first.
    """
    groups = None
    if split.num_row_groups is not None:
        groups = range(split.first_row_group, split.first_row_group + split.num_row_groups)
    return read_tables(split.file, groups=groups, first_line=split.first_line)


def _of_groups(file: str, sizes: Sequence[int]) -> list[Split]:
    splits: list[Split] = []
    first, line, num_rows = 0, 1, 0
    for group, size in enumerate(sizes, start=1):
        num_rows += size
        if num_rows >= SPLIT_ROWS or group == len(sizes):
            count = group - first
            splits.append(
                Split(file=file, first_row_group=first, num_row_groups=count, first_line=line)
            )
            first, line, num_rows = group, line + num_rows, 0
    return splits or [Split(file=file)]
