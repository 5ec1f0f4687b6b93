"""Many rows as written become as many that will be made, or all that is wrong with them.

Most rows of a large manifest differ from others in their texts, seeds and ids alone. The first good
row of each kind goes through ``RowChecker``; those like it are proved good column by column, and
their keys are one hash each. Whatever is not proved goes through ``RowChecker``, too, which finds
the words, or finds it good after all. So each row has the result that it has there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clora_core.recipe.reading.syntax import reads_as_written
from clora_core.recipe.row import Row
from manifests.places.place_names import parent
from manifests.rows.bulk.findings import (
    OWN_NAMES,
    CheckedTables,
    Found,
    NamedColumns,
    named_columns,
)
from manifests.rows.bulk.groups import Group, row_groups, table_groups
from manifests.rows.bulk.own_values import SHARED_COLUMNS, OwnValues, own_values
from manifests.rows.bulk.shortness import BY_TOKENS, shortness
from manifests.rows.bulk.templates import Template
from manifests.rows.checked_rows import shared_json
from manifests.rows.columns import ColumnNames, NamedRow
from manifests.rows.id_check import content_digest
from manifests.rows.row_check import GENERATED_ID_CHARACTERS, RowChecker
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.cell_codes import joint_codes
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.text.problems import Problem

MAX_TEMPLATES = 4096
MAX_NAME_CHARACTERS = 10_000
"""Of what rows share, as text, that is remembered."""


class TableChecker:
    """Checks rows of one manifest, many at once; what many of them share is worked out once.

    Args:
        rules: What they are checked against.
    """

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._rows = RowChecker(rules)
        self._templates: dict[tuple[str, str], Template | None] = {}

    def check(
        self,
        raw: RawTable | Sequence[RawRow | Problem],
        first_place: int,
        names: ColumnNames | None = None,
    ) -> CheckedTables:
        """Return what is right and wrong with some rows.

        Args:
            raw: As they were read.
            first_place: Of the first of them, in the manifest.
            names: Looks at the names of columns, and has seen those of the rows before. New ones
                if None; see ``named_again``.

        Raises:
            LocationError: Python has nothing for the type of a column.
        """
        names = ColumnNames() if names is None else names
        grouped = table_groups(raw) if isinstance(raw, RawTable) else None
        if grouped is None:
            rows = raw.rows() if isinstance(raw, RawTable) else raw
            groups, left_out = row_groups(rows), _left_out(rows)
        else:
            rows, (groups, left_out) = (), grouped
        found = Found(len(raw), first_place)
        found.problems += [
            (first_place + number, row) for number, row in enumerate(rows) if type(row) is Problem
        ]
        named: list[NamedColumns] = []
        for group in groups:
            first = group.row(0)
            verdict = names.named(first)
            named.append(named_columns(first_place + int(group.index[0]), first, verdict))
            if verdict.is_renamed:
                for number in range(len(group)):
                    self._one(group, number, found, names)
            else:
                self._group(group, found)
        return CheckedTables(
            rows=found.rows(),
            ids=found.ids(),
            problems=tuple(sorted(found.problems, key=_place)),
            left_out=left_out,
            named=tuple(named),
            num_slow=found.num_slow,
        )

    def _one(
        self, group: Group, number: int, found: "Found", names: ColumnNames | None = None
    ) -> Row | None:
        """Check a row by itself, and return it if it is good."""
        raw = group.row(number)
        named = NamedRow(raw=raw) if names is None else names.named(raw)
        row, problems, used = self._rows.check_but_id(named.raw, settled=named.settled)
        index = int(group.index[number])
        found.num_slow += 1
        found.problems += [(found.first_place + index, problem) for problem in problems]
        if used is not None:
            found.used.append((index, used, "row_id" not in named.settled))
        if row is None or named.is_renamed:
            return None
        found.good[index] = (*(getattr(row, name) for name in OWN_NAMES[:-1]), shared_json(row))
        return row

    def _group(self, group: Group, found: "Found") -> None:
        own = own_values(group)
        combinations = None if own is None else _combinations(group)
        if own is None or combinations is None:
            for number in range(len(group)):
                self._one(group, number, found)
            return
        learnt: list[tuple[Template, np.ndarray]] = []
        for members in combinations:
            left = self._learn(group, members, found)
            if left is not None and len(left[1]):
                learnt.append(left)
        how_short = shortness(learnt, own, len(group))
        for template, members in learnt:
            self._like(template, members, group, own, how_short, found)

    def _learn(
        self, group: Group, members: np.ndarray, found: "Found"
    ) -> tuple[Template, np.ndarray] | None:
        """Return what rows of one kind share and those that are left; None if none are."""
        shared = [name for name in SHARED_COLUMNS if name in group.columns]
        first = int(members[0])
        cells = [_cell(group.columns[name], first) for name in shared]
        known_as = parent(group.place), repr((shared, cells))
        template = self._templates.get(known_as)
        if template is not None:
            return template, members
        for done, number in enumerate(members.tolist(), start=1):
            row = self._one(group, number, found)
            if row is None:
                continue
            if not Template.fits(row):
                for other in members[done:].tolist():
                    self._one(group, other, found)
                return None
            template = Template(row, self._model(group, first).text, dtype=self._rules.dtype)
            if len(known_as[1]) <= MAX_NAME_CHARACTERS:
                if len(self._templates) >= MAX_TEMPLATES:
                    self._templates.clear()
                self._templates[known_as] = template
            return template, members[done:]
        return None

    def _model(self, group: Group, number: int) -> RowModel:
        cells = group.columns.get("base_model")
        return self._rules.base_models["" if cells is None else _cell(cells, number)]

    def _like(
        self,
        template: Template,
        members: np.ndarray,
        group: Group,
        own: "OwnValues",
        how_short: np.ndarray,
        found: "Found",
    ) -> None:
        """Check rows that share all but their own values with a good one."""
        is_short = how_short[members].tolist()
        syntax, key_of, shared = template.syntax, template.key, template.shared_json
        prompts, negatives = own.prompts, own.negatives
        index = group.index[members].tolist()
        is_right, has_signs = own.is_right[members].tolist(), own.has_signs[members].tolist()
        good, used = found.good, found.fast_ids
        no_chunks = None if template.reader is None else 1
        for place, number, right, signs, short in zip(
            index, members.tolist(), is_right, has_signs, is_short, strict=True
        ):
            prompt, negative = prompts.values[number], negatives.values[number]
            if signs and right:
                right = reads_as_written(prompt, syntax) and reads_as_written(negative, syntax)
            has = right and template.has_subjects(prompt, stand_apart=short == BY_TOKENS)
            if has is False:
                self._one(group, number, found)
                continue
            chunks = no_chunks
            if chunks and (has is None or not short):
                chunks = template.counted(prompt, negative)
                if chunks is None:
                    self._one(group, number, found)
                    continue
            key = key_of(prompt, negative, own.seeds[number], text_chunks=chunks)
            carried = "{}" if own.carried is None else own.carried[number]
            row_id = own.ids[number]
            good[place] = (
                key, row_id or key[:GENERATED_ID_CHARACTERS], prompt, negative, own.seeds[number],
                chunks, carried, shared,
            )  # fmt: skip
            if row_id is not None:
                used.append((place, row_id, content_digest(key, carried), group.lines[number]))
        found.fast_files += [group.place] * (len(used) - len(found.fast_files))


def _combinations(group: Group) -> list[np.ndarray] | None:
    """Return the rows that give the same LoRAs, settings and sizes, by what they give."""
    try:
        codes = [group.codes(name) for name in SHARED_COLUMNS if name in group.columns]
    except (RecursionError, pa.ArrowException):
        return None
    if not codes:
        return [np.arange(len(group))]
    numbers = joint_codes(codes, len(group))
    members = np.argsort(numbers, kind="stable")
    return np.split(members, np.flatnonzero(np.diff(numbers[members])) + 1)


def _left_out(rows: Sequence[RawRow | Problem]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.left_out if isinstance(row, RawRow) else ():
            counts[name] = counts.get(name, 0) + 1
    return counts


def _place(pair: tuple[int, Problem]) -> int:
    return pair[0]


def _cell(cells: Any, number: int) -> Any:
    return cells[number] if isinstance(cells, list) else cells[number].as_py()
