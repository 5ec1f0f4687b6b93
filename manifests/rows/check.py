"""From rows as written to rows as they will be made; every mistake of every row is reported.

One pass over the rows: validate, look up, apply defaults, key. The rules of methods, prompts and
settings are the sampler's own, so a row that passes is not refused later for any of these.
``check_manifest`` reads a manifest and checks many rows at once (see ``table_check``);
``check_rows`` takes given rows one at a time. Both find the same.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol

import numpy as np
import pyarrow as pa

from clora_core.recipe.row import Row
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError
from manifests.rows.checked_rows import CHECKED
from manifests.rows.columns import ColumnNames
from manifests.rows.id_check import IDS, id_partitions, id_problems
from manifests.rows.row_check import RowChecker
from manifests.rows.rules import RowRules
from manifests.rows.stored_rows import StoredRows
from manifests.rows.table_check import TableChecker
from manifests.tables.limits import MAX_PROBLEMS, too_many_problems
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.tables.readers import manifest_files, read_tables
from manifests.tables.spool import Spool
from manifests.text.problems import Problem

ID_PARTITIONS = 64
HELD_BYTES = 8 * 1024**2
"""Of rows in memory before they are written; writing takes as much again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedManifest:
    """All good rows, and all problems, each in the order of the input.

    Attributes:
        rows: The good ones.
        problems: Of the others, and of the names of columns.
        left_out: In how many rows a column held the number of its row and nothing else, by its
            name ("" for none); see ``tables.index_columns``.
        carried: Columns that are the caller's own, and merely carried through to the output.
        broken: Catalog name of each LoRA file that cannot be used, and why, as far as other
            processes looked at files; ``rules.lora_files`` knows those of this one.
    """

    rows: StoredRows
    problems: tuple[Problem, ...]
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    carried: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


class CheckManifest(Protocol):
    """``check_manifest``, or what does the same elsewhere."""

    def __call__(
        self, uri: str, rules: RowRules, *, allowed: AllowedRoots, place: str | None
    ) -> CheckedManifest:
        """Return the rows and problems of a manifest."""
        ...


def check_rows(
    raw_rows: Iterable[RawRow | Problem],
    rules: RowRules,
    *,
    place: str = "(manifest)",
    names_are_checked: bool = False,
) -> CheckedManifest:
    """Return the rows and problems of a whole manifest.

    Args:
        raw_rows: From ``readers.read_rows``.
        rules: What they are checked against.
        place: The manifest's name, for the problem that it is empty.
        names_are_checked: Whether the names of columns were looked at when the rows were made.
    """
    problems: list[Problem] = []
    left_out: Counter[str] = Counter()
    names = ColumnNames(are_checked=names_are_checked)
    num_given = 0

    def read() -> Iterator[RawRow | Problem]:
        nonlocal num_given
        for num_given, raw in enumerate(raw_rows, start=1):  # noqa: B007
            if isinstance(raw, RawRow) and raw.left_out:
                left_out.update(raw.left_out)
            yield raw

    def good() -> Iterator[Row]:
        for item in checked_rows(read(), rules, names):
            if not isinstance(item, Problem):
                yield item
                continue
            problems.append(item)
            enough = too_many_problems(len(problems))
            if enough is not None:
                problems.append(Problem(place=place, field="(file)", problem=enough))
                return

    rows = StoredRows.of(good())
    if not num_given:
        problems.append(_no_rows(place))
    return CheckedManifest(
        rows=rows, problems=tuple(problems), left_out=left_out, carried=names.carried
    )


def check_manifest(
    uri: str,
    rules: RowRules,
    *,
    allowed: AllowedRoots = EVERYWHERE,
    place: str | None = None,
    watch: Callable[[int], None] = lambda _num_rows: None,
) -> CheckedManifest:
    """Return the rows and problems of a manifest; what ``check_rows`` says of its rows.

    Holds some thousand rows at a time; the rest is on disk once it outgrows memory.

    Args:
        uri: A file, a folder or a glob, as an absolute path or URI.
        rules: What its rows are checked against.
        allowed: Where its files may be.
        place: The manifest's name, for the problem that it is empty; ``uri`` if None.
        watch: Gets the number of rows that are checked so far, again and again.
    """
    check = _ManifestCheck(rules, place=uri if place is None else place, watch=watch)
    return check.run(uri, allowed)


def check_tables(
    tables: Iterable[RawTable | Sequence[RawRow | Problem]], rules: RowRules, *, place: str
) -> CheckedManifest:
    """Return what ``check_manifest`` does of rows that were read already.

    Raises:
        LocationError: Python has nothing for the type of a column.
    """
    check = _ManifestCheck(rules, place=place)
    check.take(tables)
    return check.done()


class _ManifestCheck:
    """One check of a manifest.

    Args:
        rules: What its rows are checked against.
        place: Its name.
        watch: As in ``check_manifest``.
    """

    def __init__(
        self,
        rules: RowRules,
        *,
        place: str,
        watch: Callable[[int], None] = lambda _num_rows: None,
    ) -> None:
        self._checker = TableChecker(rules)
        self._watch = watch
        self._place = place
        self._names = ColumnNames()
        self._rows = Spool(CHECKED, max_held_bytes=HELD_BYTES)
        self._ids = Spool(IDS, ID_PARTITIONS, max_held_bytes=HELD_BYTES)
        self._problems: list[tuple[int, int, Problem]] = []
        self._left_out: Counter[str] = Counter()
        self._num_given = 0

    def run(self, uri: str, allowed: AllowedRoots) -> CheckedManifest:
        """Check all rows of a manifest."""
        for file in manifest_files(uri, allowed=allowed):
            if too_many_problems(len(self._problems)) is not None:
                break
            if isinstance(file, Problem):
                self._report(file)
                continue
            try:
                self.take(read_tables(file))
            except LocationError as error:
                self._report(Problem(place=file, field="(file)", problem=str(error)))
        return self.done()

    def done(self) -> CheckedManifest:
        """Return what was found, ids compared."""
        for partition in range(self._ids.num_partitions):
            found = id_problems(self._ids.partition(partition))
            self._problems += [(number, OF_IDS, problem) for number, problem in found]
        self._ids.close()
        problems, last = ordered_problems(
            self._problems, place=self._place, is_empty=not self._num_given
        )
        return CheckedManifest(
            rows=StoredRows(self._good(self._num_given if last is None else last)),
            problems=problems,
            left_out=self._left_out,
            carried=self._names.carried,
        )

    def take(self, tables: Iterable[RawTable | Sequence[RawRow | Problem]]) -> None:
        """Check some rows that come after those before."""
        for raw in tables:
            checked = self._checker.check(raw, self._num_given, self._names)
            self._num_given += len(raw)
            self._left_out.update(checked.left_out)
            self._rows.add(checked.rows)
            row_ids = checked.ids["row_id"].to_pylist()
            self._ids.add(checked.ids, id_partitions(row_ids, self._ids.num_partitions))
            self._problems += [(place, OF_ROWS, problem) for place, problem in checked.problems]
            self._problems += [
                (named.place, OF_NAMES, problem)
                for named in checked.named
                for problem in named.problems
            ]
            if too_many_problems(len(self._problems)) is not None:
                return
            self._watch(self._num_given)

    def _report(self, problem: Problem) -> None:
        self._problems.append((self._num_given, OF_ROWS, problem))
        self._num_given += 1

    def _good(self, last: int) -> Spool:
        """Return the rows up to a place without those whose id stands for another row."""
        bad = {place for place, what, _ in self._problems if what == OF_IDS}
        if not bad and last == self._num_given:
            return self._rows
        kept = Spool(CHECKED, max_held_bytes=HELD_BYTES)
        unwanted = np.array(sorted(bad), np.int64)
        for table in self._rows.tables():
            places = np.asarray(table["place"].combine_chunks())
            is_kept = ~np.isin(places, unwanted) & (places <= last)
            kept.add(table.filter(pa.array(is_kept)))
        self._rows.close()
        return kept


def ordered_problems(
    problems: list[tuple[int, int, Problem]], *, place: str, is_empty: bool
) -> tuple[tuple[Problem, ...], int | None]:
    """Return the problems of a manifest in its order, not too many, and the last that counts.

    Args:
        problems: Each with its place and what it is of; left sorted, and no more than count.
        place: The manifest's name.
        is_empty: Whether it holds no rows.

    Returns:
        The problems, and the place up to which rows are read if there are too many.
    """
    problems.sort(key=itemgetter(0, 1))
    enough, last = too_many_problems(len(problems)), None
    if enough is not None:
        del problems[MAX_PROBLEMS:]
        last = problems[-1][0]
        enough = too_many_problems(len(problems))
    found = [problem for _, _, problem in problems]
    if enough is not None:
        found.append(Problem(place=place, field="(file)", problem=enough))
    if is_empty:
        found.append(_no_rows(place))
    return tuple(found), last


OF_NAMES, OF_ROWS, OF_IDS = range(3)
"""What a problem is of; in the order that problems of one row are reported in."""


def checked_rows(
    raw_rows: Iterable[RawRow | Problem], rules: RowRules, names: ColumnNames
) -> Iterator[Row | Problem]:
    """Return a resolved row for every good row, and every problem of every other one.

    A row whose only problem is reported elsewhere, of its file or of the catalog, is neither.

    Holds one row at a time; what grows with the manifest is the memory of row ids alone.

    Args:
        raw_rows: From ``readers.read_rows``; its problems are passed on in place.
        rules: What they are checked against.
        names: Looks at the names of columns.
    """
    checker = RowChecker(rules)
    for raw in raw_rows:
        if isinstance(raw, Problem):
            yield raw
            continue
        named = names.named(raw)
        yield from named.problems
        row, problems = checker.check(named.raw, settled=named.settled)
        yield from problems
        if row is not None and not named.is_renamed:
            yield row


def _no_rows(place: str) -> Problem:
    text = "holds no rows; write at least one with prompt, loras and seed"
    return Problem(place=place, field="(file)", problem=text)
