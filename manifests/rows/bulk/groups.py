"""Rows that give the same columns, as columns: of a table, or of rows that were read one by one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.tables.cell_codes import cell_codes, has_codes
from manifests.tables.index_columns import index_names, is_row_number
from manifests.tables.parquet_rows import is_large
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.text.problems import Problem


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Group:
    """Rows that give the same columns.

    Attributes:
        place: The file.
        columns: The values of each column, by name, in the order that they are given in: an Arrow
            array or a list.
        index: The place of each among the rows that were read.
        lines: The line of each.
        exact_to: As in ``RawRow``.
    """

    place: str
    columns: Mapping[str, Any]
    index: np.ndarray
    lines: Sequence[int]
    exact_to: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.index)

    def row(self, number: int) -> RawRow:
        """Return one row as it was read."""
        values = {name: _cell(cells, number) for name, cells in self.columns.items()}
        line = self.lines[number]
        return RawRow(place=self.place, line=line, values=values, exact_to=self.exact_to)

    def values(self, name: str) -> list[Any]:
        """Return the values of a column as Python has them.

        Raises:
            ValueError: Python cannot hold one.
            OverflowError: Likewise.
        """
        cells = self.columns[name]
        return cells if isinstance(cells, list) else cells.to_pylist()

    def codes(self, name: str) -> np.ndarray:
        """Return a number for each value of a column; equal numbers are equal values."""
        cells = self.columns[name]
        if not isinstance(cells, list):
            return cell_codes(cells)
        numbers: dict[object, int] = {}
        return np.fromiter(
            (
                numbers.setdefault(cell if type(cell) is str else (repr(cell),), len(numbers))
                for cell in cast("list[object]", cells)
            ),
            np.int64,
            len(cells),
        )


def table_groups(raw: RawTable) -> tuple[list[Group], Mapping[str, int]] | None:
    """Return the rows of a table by what they give, and how often a row number was left out.

    None where the table has to be looked at row by row: its texts are not UTF-8, or a type is rare.
    """
    if is_large(raw.batch):
        return None
    try:
        columns = {
            name: _plain(cells)
            for name, cells in zip(raw.batch.schema.names, raw.batch.columns, strict=True)
        }
        if not all(has_codes(cells.type) for cells in columns.values()):
            return None
        for cells in columns.values():
            cells.validate(full=True)
            if not _python_has_all(cells.type):
                cells.to_pylist()
        given = [_is_given(cells) for cells in columns.values()]
        left_out: dict[str, int] = {}
        for name in index_names(tuple(columns)):
            number = list(columns).index(name)
            is_number = np.fromiter(map(is_row_number, columns[name].to_pylist()), bool, len(raw))
            count = int((is_number & given[number]).sum())
            left_out |= {name: count} if count else {}
            given[number] &= ~is_number
        return list(_by_shape(raw, columns, given)), left_out
    except (pa.ArrowException, ValueError, OverflowError):
        return None


def row_groups(
    rows: Sequence[RawRow | Problem],
) -> list[Group]:
    """Return the rows by what they give; problems are left out."""
    found: dict[tuple[object, ...], list[int]] = {}
    for number, row in enumerate(rows):
        if isinstance(row, RawRow):
            shape = (row.place, tuple(row.values), tuple(row.exact_to.items()))
            found.setdefault(shape, []).append(number)
    groups: list[Group] = []
    for numbers in found.values():
        members = [cast("RawRow", rows[number]) for number in numbers]
        groups.append(
            Group(
                place=members[0].place,
                columns={name: [row.values[name] for row in members] for name in members[0].values},
                index=np.array(numbers),
                lines=[row.line for row in members],
                exact_to=members[0].exact_to,
            )
        )
    return groups


def _by_shape(
    raw: RawTable, columns: Mapping[str, pa.Array], given: Sequence[np.ndarray]
) -> Iterator[Group]:
    if all(each.all() for each in given):
        shapes = [(np.arange(len(raw)), [True] * len(given))]
    else:
        matrix = np.stack(given, axis=1)
        packed = np.ascontiguousarray(np.packbits(matrix, axis=1))
        names = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
        first, inverse = np.unique(names, return_index=True, return_inverse=True)[1:]
        members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        shapes = [
            (index, matrix[place].tolist())
            for place, index in sorted(zip(first.tolist(), members, strict=True), key=_first)
        ]
    for index, is_given in shapes:
        is_all = len(index) == len(raw)
        where = None if is_all else pa.array(index)
        yield Group(
            place=raw.place,
            columns={
                name: cells if where is None else cells.take(where)
                for (name, cells), named in zip(columns.items(), is_given, strict=True)
                if named
            },
            index=index,
            lines=(index + raw.first_line).tolist(),
            exact_to=raw.exact_to,
        )


def _first(pair: tuple[int, np.ndarray]) -> int:
    return pair[0]


def _plain(cells: pa.Array) -> pa.Array:
    """Return texts as such, whatever way they are held in."""
    if isinstance(cells, pa.DictionaryArray):
        cells = cells.dictionary_decode()
    return cells.cast(pa.large_string()) if pa.types.is_string_view(cells.type) else cells


def _is_given(cells: pa.Array) -> np.ndarray:
    is_null = pc.call_function("is_null", [cells], pc.NullOptions(nan_is_null=True))
    return ~np.asarray(is_null)


def _python_has_all(kind: pa.DataType) -> bool:
    """Return whether Python can hold every value of a type that has codes."""
    if pa.types.is_temporal(kind):
        return False
    inner = [kind.field(index) for index in range(kind.num_fields)]
    is_clear = not pa.types.is_struct(kind) or len({each.name for each in inner}) == len(inner)
    return is_clear and all(_python_has_all(each.type) for each in inner)


def _cell(cells: Any, number: int) -> Any:
    return cells[number] if isinstance(cells, list) else cells[number].as_py()
