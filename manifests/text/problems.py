"""What is wrong with the input, as values: one mistake each, all of them at once.

Whoever fixes a manifest of ten thousand rows wants the whole list, with the place, the row and
the way out of each. So checks collect problems and go on; the command line, reports and tests
share these values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from clora_core.recipe.errors import CloraError
from manifests.text.text_rules import printable

MAX_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        place: The file (or URI) it is in.
        line: 1-based line of a text file or row number of a table; None for the whole file.
        row_id: The row's own id; None if it has none or the mistake is not in a row.
        field: Column or setting, ``(row)`` for a row as a whole, ``(file)`` for a file.
        problem: Rule, value and way out, in one sentence.
        noun: What ``row_id`` is the name of: ``row``, or ``LoRA`` in a catalog.
    """

    place: str
    line: int | None = None
    row_id: str | None = None
    field: str
    problem: str
    noun: str = "row"

    def __str__(self) -> str:
        """Return the line that stands under the place: ``line 2, row 'a b', row_id: ...``.

        Names of fields and files may hold anything, so what a terminal would obey is escaped.
        """
        where: list[str] = []
        if self.line is not None:
            where.append(f"line {self.line}")
            named = f"{self.noun} {self.row_id!r}"
            where.append(f"{self.noun} without an id" if self.row_id is None else named)
        where.append(self.field)
        return printable(f"{', '.join(where)}: {self.problem}")


def problems_at(place: str, findings: Iterable[tuple[str, str]], **where: Any) -> list[Problem]:
    """Return (field, sentence) findings as problems of ``place``; ``where`` says more of each."""
    return [Problem(place=place, field=field, problem=text, **where) for field, text in findings]


class InputError(CloraError):
    """The job, its catalog or its manifest has problems; nothing was started.

    Attributes:
        problems: Every one that was found, in the order of the input.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render(self.problems))

    def __reduce__(self) -> tuple[type["InputError"], tuple[tuple[Problem, ...]]]:
        """Keep the problems when the error crosses a process border."""
        return (type(self), (self.problems,))


def render(problems: Sequence[Problem], *, max_shown: int = MAX_SHOWN) -> str:
    """Return the problems as text, grouped by place, the first ``max_shown`` of them in full."""
    lines: list[str] = []
    shown = problems[:max_shown]
    for place, group in groupby(shown, key=lambda problem: problem.place):
        num_here = sum(problem.place == place for problem in problems)
        lines.append(f"{printable(place)}: {num_here:,} problem(s); no image was made")
        lines.extend(f"  {problem}" for problem in group)
    if len(problems) > len(shown):
        lines.append(f"  ... and {len(problems) - len(shown):,} more")
    return "\n".join(lines)
