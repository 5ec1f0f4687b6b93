"""The columns of a manifest by name: those that are read, those that are carried, and mistakes.

Every column that is not ours is carried through to the output, so a misspelt one would act as if it
were read. A name that is surely a mistake is one problem of its file, and its values are checked
under the right name; all others are the caller's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from manifests.rows.sampler_settings import SAMPLER_SECTION
from manifests.rows.schema import ManifestRow
from manifests.tables.readers import RawRow
from manifests.text.problems import Problem
from manifests.text.sections import OWN_PREFIX, SIZE_NAMES, Section, Verdict, section_of, verdict

MAX_SHAPES = 10_000
MAX_NAMES = 2000
"""Names of a file that are not ours; comparing one takes about a millisecond."""
MAX_VERDICTS = 100_000

_TOO_MANY = (
    f"has more than {MAX_NAMES:,} column names that are not read, and misspelt ones among them are "
    f"no longer found; put what they hold into one column, or begin them with {OWN_PREFIX!r}"
)

_OWN_WORDS = frozenset(
    {
        "algorithm", "alpha", "base", "combine", "emphasis", "factor", "keyword", "multiplier",
        "scale", "syntax", "token",
    }
)  # fmt: skip
"""Other tools' names of ours that are words of many tables too."""

OF_LORAS = Section(names=("weight", "trigger"), is_apart=True)
COLUMNS = replace(
    section_of(ManifestRow),
    inner={"sampler": SAMPLER_SECTION, "loras": OF_LORAS},
    own_words=_OWN_WORDS,
)
"""What a manifest row may hold. Of a LoRA's fields only these are hardly ever a row's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRow:
    """A row under the columns that were meant.

    Attributes:
        raw: The row.
        problems: Names of its file that are wrong and were not reported before.
        settled: Columns of it that a problem of the file speaks of.
        is_renamed: Whether a name of it was wrong; then it is checked, and no row to be made.
    """

    raw: RawRow
    problems: tuple[Problem, ...] = ()
    settled: frozenset[str] = frozenset()
    is_renamed: bool = False


_Shape = tuple[Mapping[str, str | None], frozenset[str]]
"""Of rows with the same columns: the right name of each wrong one, and columns that are settled."""


@dataclass(kw_only=True)
class _File:
    """What is known of the columns of one file.

    Attributes:
        given: Columns of ours that some row has.
        reported: Names with a problem.
        names: Other names that were looked at.
        verdicts: What a name is taken for, by the name and the columns of ours that are given.
        has_too_many: Whether there were more names than are looked at.
        shapes: By the columns of a row.
    """

    given: set[str] = field(default_factory=set[str])
    reported: set[str] = field(default_factory=set[str])
    names: set[str] = field(default_factory=set[str])
    verdicts: dict[tuple[str, frozenset[str]], Verdict | None] = field(
        default_factory=dict[tuple[str, frozenset[str]], Verdict | None]
    )
    has_too_many: bool = False
    shapes: dict[tuple[str, ...], _Shape] = field(default_factory=dict[tuple[str, ...], _Shape])


class ColumnNames:
    """Looks at the names of columns, file by file, and remembers what it said.

    Args:
        are_checked: Whether the names were looked at when the rows were made.
    """

    def __init__(self, *, are_checked: bool = False) -> None:
        self._are_checked = are_checked
        self._files: dict[str, _File] = {}
        self._carried: dict[str, None] = {}

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that are the caller's own and merely carried, in the order they were met."""
        return tuple(self._carried)

    def named(self, raw: RawRow) -> NamedRow:
        """Return the row under the columns that were meant, and what is new about its file."""
        file = self._files.setdefault(raw.place, _File())
        shape = tuple(raw.values)
        problems: list[Problem] = []
        if shape not in file.shapes:
            if len(file.shapes) >= MAX_SHAPES:
                file.shapes.clear()
            file.shapes[shape] = self._look(raw, file, problems)
        renamed, settled = file.shapes[shape]
        if not renamed:
            return NamedRow(raw=raw, problems=tuple(problems))
        values = {right: raw.values[name] for name, right in renamed.items() if right is not None}
        values |= {name: value for name, value in raw.values.items() if name not in renamed}
        return NamedRow(
            raw=replace(raw, values=values),
            problems=tuple(problems),
            settled=settled,
            is_renamed=True,
        )

    def _look(self, raw: RawRow, file: _File, problems: list[Problem]) -> _Shape:
        given = {name for name in COLUMNS.names if name in raw.values}
        file.given |= given
        taken = set(file.given)
        renamed: dict[str, str | None] = {}
        settled: set[str] = set()
        for name, value in raw.values.items():
            if name in given:
                continue
            found = None
            if not self._are_checked and not name.lower().startswith(OWN_PREFIX):
                if name in file.names or len(file.names) < MAX_NAMES:
                    file.names.add(name)
                    found = _verdict(name, value, taken, file)
                elif not file.has_too_many:
                    file.has_too_many = True
                    problems.append(Problem(place=raw.place, field="(file)", problem=_TOO_MANY))
            if found is None:
                if len(self._carried) < MAX_NAMES:
                    self._carried.setdefault(name)
                continue
            renamed[name] = found.right
            taken |= {found.right or name}
            settled |= set() if found.is_respelt else set(found.asked)
            if name not in file.reported:
                file.reported.add(name)
                problems.append(Problem(place=raw.place, field=name, problem=found.sentence))
        return renamed, frozenset(settled)


def _verdict(name: str, value: object, taken: set[str], file: _File) -> Verdict | None:
    """Return ``verdict``, remembered where it does not depend on the value."""
    if name.lower() in SIZE_NAMES:
        return verdict(name, value, COLUMNS, taken)
    of = name, frozenset(taken.intersection(COLUMNS.names))
    if of not in file.verdicts:
        if len(file.verdicts) >= MAX_VERDICTS:
            file.verdicts.clear()
        file.verdicts[of] = verdict(name, value, COLUMNS, taken)
    return file.verdicts[of]
