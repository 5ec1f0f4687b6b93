"""How much of a manifest is read: more than anyone writes, and less than what ends a machine.

A file of a few kilobytes can unpack to billions of lines, or say in its Parquet header that it
holds a billion rows or one list of a billion items. Each is noticed before it is held in memory.
"""

from collections.abc import Iterator

from pyarrow import parquet as pq

from manifests.places.locations import LocationError

MAX_LINES = 10_000_000
"""Rows of one file; blank lines count."""

MAX_UNPACKED_BYTES = 16 * 1024**3
"""Bytes of one text file after decompression."""

MAX_LINE_BYTES = 16 * 1024**2
"""Of one line of a text file, and of all lines of one CSV row."""

MAX_PROBLEMS = 100_000
"""Problems that are kept; nobody reads more, and a hostile file has billions."""

MAX_ROW_VALUES = 1_000_000
"""Values of one column in one row, on average over a row group."""

MAX_GROUP_VALUES = 100_000_000
"""Values of one column in one row group, which a few bytes can stand for."""


def counted_lines(lines: Iterator[tuple[int, bytes]], *, file: str) -> Iterator[tuple[int, bytes]]:
    """Return the lines as they come, as long as they are not too many or too long together.

    Raises:
        LocationError: Too many.
    """
    num_bytes = 0
    for number, content in lines:
        num_bytes += len(content)
        if number > MAX_LINES or num_bytes > MAX_UNPACKED_BYTES:
            raise LocationError(
                f"{file} has more than {MAX_LINES:,} lines or {MAX_UNPACKED_BYTES:,} unpacked "
                "bytes; split it into several files"
            )
        yield number, content


def check_parquet_size(metadata: pq.FileMetaData, *, file: str) -> None:
    """Refuse a Parquet file that says it holds too much, before any of it is read.

    Raises:
        LocationError: Too many rows, or too many values in them.
    """
    if metadata.num_rows > MAX_LINES:
        raise LocationError(
            f"{file} has {metadata.num_rows:,} rows and at most {MAX_LINES:,} are read; "
            "split it into several files"
        )
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        for index in range(described.num_columns):
            column = described.column(index)
            if column.num_values > MAX_GROUP_VALUES:
                raise LocationError(
                    f"{file}, column {column.path_in_schema[:100]!r} holds {column.num_values:,} "
                    f"values in one row group; at most {MAX_GROUP_VALUES:,} are read: write "
                    "smaller row groups"
                )
            if column.num_values > max(1, described.num_rows) * MAX_ROW_VALUES:
                raise LocationError(
                    f"{file}, column {column.path_in_schema[:100]!r} holds {column.num_values:,} "
                    f"values in {described.num_rows:,} rows; a row has at most "
                    f"{MAX_ROW_VALUES:,}: shorten its lists"
                )


def too_many_problems(num_problems: int) -> str | None:
    """Return why no more rows are checked, or None as long as problems are few enough."""
    if num_problems < MAX_PROBLEMS:
        return None
    return f"{num_problems:,} problems were found and the rest is not read; correct these first"
