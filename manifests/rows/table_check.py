"""Many rows as written become as many that will be made, or all that is wrong with them.

Most rows of a large manifest differ from others in their texts, seeds and ids alone. The first good
row of each kind goes through ``RowChecker``; those like it are proved good column by column, and
their keys are one hash each. Whatever is not proved goes through ``RowChecker``, too, which finds
the words, or finds it good after all. So each row has the result that it has there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clora_core.recipe.reading.syntax import reads_as_written
from clora_core.recipe.row import Row
from manifests.places.place_names import parent
from manifests.rows.bulk.groups import Group, row_groups, table_groups
from manifests.rows.bulk.own_values import (
    SHARED_COLUMNS,
    Texts,
    carried_of,
    ids_of,
    seeds_of,
    texts_of,
)
from manifests.rows.bulk.templates import Template
from manifests.rows.checked_rows import CHECKED, shared_json
from manifests.rows.columns import ColumnNames, NamedRow
from manifests.rows.id_check import IDS, UsedId, content_digest
from manifests.rows.row_check import GENERATED_ID_CHARACTERS, RowChecker
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.text_reader import WordReader
from manifests.tables.cell_codes import joint_codes
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.text.problems import Problem
from manifests.text.sections import SIZE_NAMES

MAX_TEMPLATES = 4096
MAX_NAME_CHARACTERS = 10_000
"""Of what rows share, as text, that is remembered."""

_OWN_NAMES = CHECKED.names[1:]


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
    return [_named(each.place, each.first, names.named(each.first)) for each in found]


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
        found = _Found(len(raw), first_place)
        found.problems += [
            (first_place + number, row) for number, row in enumerate(rows) if type(row) is Problem
        ]
        named: list[NamedColumns] = []
        for group in groups:
            first = group.row(0)
            verdict = names.named(first)
            named.append(_named(first_place + int(group.index[0]), first, verdict))
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
        self, group: Group, number: int, found: "_Found", names: ColumnNames | None = None
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
        found.good[index] = (*(getattr(row, name) for name in _OWN_NAMES[:-1]), shared_json(row))
        return row

    def _group(self, group: Group, found: "_Found") -> None:
        own = _own_values(group)
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
        shortness = _shortness(learnt, own, len(group))
        for template, members in learnt:
            self._like(template, members, group, own, shortness, found)

    def _learn(
        self, group: Group, members: np.ndarray, found: "_Found"
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
        own: "_OwnValues",
        shortness: np.ndarray,
        found: "_Found",
    ) -> None:
        """Check rows that share all but their own values with a good one."""
        is_short = shortness[members].tolist()
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
            has = right and template.has_subjects(prompt, stand_apart=short == _BY_TOKENS)
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _OwnValues:
    """What each row of a group says by itself.

    Attributes:
        prompts: Of each.
        negatives: Of each.
        seeds: Of each.
        ids: Of each, None where it gives none.
        carried: As canonical JSON; None where no row carries anything.
        is_right: Whether all of these hold to their rules.
        has_signs: Whether a text may say more than its words.
    """

    prompts: Texts
    negatives: Texts
    seeds: list[int]
    ids: Sequence[str | None]
    carried: list[str] | None
    is_right: np.ndarray
    has_signs: np.ndarray


def _own_values(group: Group) -> _OwnValues | None:
    """Return what each row says by itself; None where that has to be looked at row by row."""
    if "seed" not in group.columns or "prompt" not in group.columns:
        return None
    try:
        prompts = texts_of(group, "prompt")
        negatives = texts_of(group, "negative_prompt", may_be_blank=True)
        ids = ids_of(group)
        if prompts is None or negatives is None or ids is None:
            return None
        seeds, are_seeds = seeds_of(group)
        carried, can_be_carried = carried_of(group)
    except (RecursionError, ValueError, OverflowError, pa.ArrowException):
        return None
    return _OwnValues(
        prompts=prompts,
        negatives=negatives,
        seeds=seeds,
        ids=ids[0],
        carried=carried,
        is_right=prompts.is_right & negatives.is_right & ids[1] & are_seeds & can_be_carried,
        has_signs=prompts.has_signs | negatives.has_signs,
    )


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


_TOO_LONG, _BY_CHARACTERS, _BY_TOKENS = 0, 1, 2
"""Whether a row's texts are surely one chunk, and why."""

_UNKNOWN = 2**31
"""More characters or tokens than any text has."""


def _shortness(
    learnt: Sequence[tuple[Template, np.ndarray]], own: _OwnValues, num_rows: int
) -> np.ndarray:
    """Return for each row whether its texts are surely one chunk; tokens are counted if need be."""
    prompts, negatives = own.prompts, own.negatives
    capacity, characters = np.full((2, num_rows), _UNKNOWN, np.int64)
    for template, members in learnt:
        capacity[members] = _UNKNOWN if template.reader is None else template.capacity
        if template.reader is None:
            characters[members] = 0
        elif template.trigger_characters is not None:
            characters[members] = template.trigger_characters
    has_reader = capacity < _UNKNOWN
    is_short = np.maximum(prompts.num_bytes + characters, negatives.num_bytes) <= capacity
    is_short &= (prompts.is_ascii & negatives.is_ascii) | ~has_reader
    found = np.where(is_short, _BY_CHARACTERS, _TOO_LONG)
    readers: dict[int, WordReader] = {}
    num_tokens = np.full(num_rows, _UNKNOWN, np.int64)
    for template, members in learnt:
        reader: Any = template.reader
        if reader is None or is_short[members].all() or template.trigger_tokens is None:
            continue
        readers[id(reader)] = reader
        num_tokens[members] = template.trigger_tokens
    if len(readers) == 1:  # of several models with a tokenizer each, rows are counted one by one
        (reader,) = readers.values()
        prompt = _num_tokens(prompts.cells, reader)
        negative = _num_tokens(negatives.cells, reader)
        if prompt is not None and negative is not None:
            fits = np.maximum(prompt + num_tokens, negative) <= capacity
            found[fits & ~is_short] = _BY_TOKENS
    return found


def _num_tokens(texts: pa.Array, reader: WordReader) -> np.ndarray | None:
    """Return the tokens of the words of each text; None if they need not be the text's."""
    split = pc.call_function("split_pattern", [texts], pc.SplitPatternOptions(" "))
    words = split.flatten().dictionary_encode()
    counts = reader.word_tokens(words.dictionary.to_pylist())
    if counts is None:
        return None
    of_each = np.array(counts, np.int64)[np.asarray(words.indices)]
    ends = np.cumsum(np.asarray(pc.call_function("list_value_length", [split])))
    sums = np.concatenate([[0], np.cumsum(of_each)])[ends]
    return np.diff(sums, prepend=0)


class _Found:
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
            for name, values in zip(_OWN_NAMES[:-1], columns, strict=False)
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


def _named(place: int, first: RawRow, verdict: NamedRow) -> NamedColumns:
    values = {
        name: value if name.lower() in SIZE_NAMES else None for name, value in first.values.items()
    }
    return NamedColumns(
        place=place,
        first=replace(first, values=values, left_out=()),
        problems=verdict.problems,
        verdict=(verdict.is_renamed, verdict.settled, tuple(verdict.raw.values)),
    )


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
