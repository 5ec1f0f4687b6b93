"""From rows as written to rows as they will be made; every mistake of every row is reported.

One pass over the rows, one row at a time: validate, look up, apply defaults, key. What many rows
share (LoRA lists, sampler settings) is worked out once. The rules of methods, prompts and settings
are the sampler's own, so a row that passes is not refused later for any of these.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clora_core.recipe.row import Row
from manifests.rows.columns import ColumnNames
from manifests.rows.row_check import RowChecker
from manifests.rows.rules import RowRules
from manifests.rows.stored_rows import StoredRows
from manifests.tables.limits import too_many_problems
from manifests.tables.readers import RawRow
from manifests.text.problems import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedManifest:
    """All good rows, and all problems, each in the order of the input.

    Attributes:
        rows: The good ones.
        problems: Of the others, and of the names of columns.
        left_out: In how many rows a column held the number of its row and nothing else, by its
            name ("" for none); see ``tables.index_columns``.
        carried: Columns that are the caller's own, and merely carried through to the output.
    """

    rows: Sequence[Row]
    problems: tuple[Problem, ...]
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    carried: tuple[str, ...] = ()


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
        text = "holds no rows; write at least one with prompt, loras and seed"
        problems.append(Problem(place=place, field="(file)", problem=text))
    return CheckedManifest(
        rows=rows, problems=tuple(problems), left_out=left_out, carried=names.carried
    )


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
