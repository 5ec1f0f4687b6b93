"""Rows as they were read and before they are judged: one by one, or as a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.places.locations import LocationError
from manifests.tables.index_columns import index_names, is_row_number
from manifests.tables.parquet_rows import row_values
from manifests.text.problems import Problem
from manifests.text.text_rules import is_missing


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """One row as it was read.

    Attributes:
        place: The file.
        line: 1-based line of a text file; row number of a Parquet file.
        values: What is given, by column; texts alone where the format knows nothing else (CSV).
        left_out: Columns whose cell is a row number that a data frame's index left (see
            ``index_columns``); they are not among the values.
        exact_to: Columns of short floats, with the first number from which on they skip whole
            numbers.
    """

    place: str
    line: int
    values: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    exact_to: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RawTable:
    """Neighbouring rows of a Parquet file.

    Attributes:
        place: The file.
        first_line: Row number of the first.
        batch: The rows, as the file's decoder gives them: texts may not be UTF-8.
        exact_to: As in ``RawRow``.
    """

    place: str
    first_line: int
    batch: pa.RecordBatch
    exact_to: Mapping[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self.batch)

    def rows(self) -> list[RawRow | Problem]:
        """Return the rows one by one, and a problem for each that cannot be read.

        Raises:
            LocationError: Python has nothing for the type of a column.
        """
        try:
            values = row_values(self.batch)
        except (pa.ArrowException, MemoryError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LocationError(f"{self.place} cannot be read: {reason}") from error
        return [
            Problem(place=self.place, line=line, field="(row)", problem=found)
            if isinstance(found, str)
            else raw_row(self.place, line, given(found), exact_to=self.exact_to)
            for line, found in enumerate(values, start=self.first_line)
        ]


def raw_row(file: str, line: int, values: dict[str, Any], **more: Any) -> RawRow:
    """Return the row of what is given, without row numbers that an index left."""
    names = index_names(tuple(values))
    index = tuple(name for name in names if is_row_number(values[name])) if names else ()
    for name in index:
        del values[name]
    return RawRow(place=file, line=line, values=values, left_out=index, **more)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that say something."""
    return {name: value for name, value in values.items() if not is_missing(value)}
