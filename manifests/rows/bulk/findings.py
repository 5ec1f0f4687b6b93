"""What the check of many rows finds: the good ones, uses of ids, problems, and names of columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.rows.checked_rows import CHECKED
from manifests.rows.columns import ColumnNames, NamedRow
from manifests.rows.id_check import IDS, UsedId
from manifests.tables.raw_rows import RawRow
from manifests.text.problems import Problem
from manifests.text.sections import SIZE_NAMES

OWN_NAMES = CHECKED.names[1:]
"""Columns of a checked row beside its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedColumns:
    """Rows of one file that give the same columns, and what was made of their names.

    Attributes:
        place: Of the first of them, in the manifest.
        first: The first, with those values alone that a name's meaning depends on.
        problems: New problems of the file.
        renamed: What ``ColumnNames`` said of them but for the problems.
    """

    place: int
    first: RawRow
    problems: tuple[Problem, ...]
    verdict: tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CheckedTables:
    """What the check of some rows found.

    Attributes:
        rows: The good ones, in order, of ``CHECKED``; where an id stands for two rows is not known
            yet.
        ids: Uses of ids by good and bad rows, of ``id_check.IDS``.
        problems: Of the others, each with the row's place, in order. Those of names are in
            ``named``.
        left_out: In how many rows a column held the number of its row and nothing else.
        named: Columns that rows give, each time that others are met, in order.
        num_slow: Rows that were looked at one by one.
    """

    rows: pa.Table
    ids: pa.Table
    problems: tuple[tuple[int, Problem], ...]
    left_out: Mapping[str, int]
    named: tuple[NamedColumns, ...]
    num_slow: int


def named_again(found: Sequence[NamedColumns], names: ColumnNames) -> list[NamedColumns]:
    """Return what ``names`` says of columns that were looked at elsewhere, in the same order.

    Where a verdict is another one than it was there, the rows have to be checked again under
    ``names``: what a column is taken for depends on what rows before it give.
    """
    return [named_columns(each.place, each.first, names.named(each.first)) for each in found]


def named_columns(place: int, first: RawRow, verdict: NamedRow) -> NamedColumns:
    """Return what ``verdict`` says of a row and of those after it with the same columns."""
    values = {
        name: value if name.lower() in SIZE_NAMES else None for name, value in first.values.items()
    }
    return NamedColumns(
        place=place,
        first=replace(first, values=values, left_out=()),
        problems=verdict.problems,
        verdict=(verdict.is_renamed, verdict.settled, tuple(verdict.raw.values)),
    )


class Found:
    """What was found so far of some rows, by their place among them."""

    def __init__(self, num_rows: int, first_place: int) -> None:
        self.first_place = first_place
        self.good: list[tuple[Any, ...] | None] = [None] * num_rows
        self.used: list[tuple[int, UsedId, bool]] = []
        self.fast_ids: list[tuple[int, str, bytes, int]] = []
        self.fast_files: list[str] = []
        self.problems: list[tuple[int, Problem]] = []
        self.num_slow = 0

    def rows(self) -> pa.Table:
        """Return the good rows, of ``CHECKED``."""
        numbers = [number for number, row in enumerate(self.good) if row is not None]
        columns = list(zip(*(row for row in self.good if row is not None), strict=True))
        if not columns:
            return CHECKED.empty_table()
        places = pa.array(np.array(numbers, np.int64) + self.first_place)
        own = [
            pa.array(values, CHECKED.field(name).type)
            for name, values in zip(OWN_NAMES[:-1], columns, strict=False)
        ]
        known: dict[str, int] = {}
        indices = pa.array([known.setdefault(text, len(known)) for text in columns[-1]], pa.int32())
        shared = pa.DictionaryArray.from_arrays(indices, pa.array(list(known), pa.string()))
        return pa.table([places, *own, shared.dictionary_decode()], schema=CHECKED)

    def ids(self) -> pa.Table:
        """Return the uses of ids, of ``IDS``."""
        slow = [
            (number, used.row_id, used.content, used.file, used.line, is_reported)
            for number, used, is_reported in self.used
        ]
        fast = [
            (number, row_id, content, file, line, True)
            for (number, row_id, content, line), file in zip(
                self.fast_ids, self.fast_files, strict=True
            )
        ]
        columns = list(zip(*slow, *fast, strict=True))
        if not columns:
            return IDS.empty_table()
        places = pa.array(np.array(columns[0], np.int64) + self.first_place)
        own = [pa.array(each, kind) for each, kind in zip(columns[1:], IDS.types[1:], strict=True)]
        return pa.table([places, *own], schema=IDS)
