"""The table of what is read, in Markdown, for the documentation.

Kinds with the same answers share a row, and so do spellings.
"""

from collections.abc import Callable

from adapters.case import FAMILIES, AdapterCase, Trainer
from adapters.cases import CASES, TRAINERS

Verdict = Callable[[AdapterCase], str]
"""Returns ``read``, or ``refused: `` and why, in a few words."""

NO_FILE = "no such file"
_HEAD = ("written by", "kind", "layer names", "SD1.5", "SDXL")


def table(verdict: Verdict) -> str:
    """Return the table, a row for each trainer and its kinds and spellings with the same answers.

    Args:
        verdict: Asked once for every case in F32.
    """
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for trainer in TRAINERS:
        answers = _answers(trainer, verdict)
        by_answers: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = {}
        for kind in trainer.kinds:
            by_answers.setdefault(_grouped(answers[kind]), []).append(kind)
        for groups, kinds in by_answers.items():
            rows += [
                (trainer.name, ", ".join(kinds), spellings, *cells) for spellings, cells in groups
            ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _answers(trainer: Trainer, verdict: Verdict) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the answers by kind and spelling, one for each family."""
    said = {
        (case.kind, case.spelling, case.family): verdict(case)
        for case in CASES
        if case.trainer == trainer.name and case.dtype == "F32"
    }
    return {
        kind: {
            spelling: tuple(said.get((kind, spelling, family), NO_FILE) for family in FAMILIES)
            for spelling in trainer.spellings
        }
        for kind in trainer.kinds
    }


def _grouped(by_spelling: dict[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return spellings with the same answers together; those without any file are left out."""
    found: dict[tuple[str, ...], list[str]] = {}
    for spelling, cells in by_spelling.items():
        if set(cells) != {NO_FILE}:
            found.setdefault(cells, []).append(spelling)
    return tuple((", ".join(spellings), cells) for cells, spellings in found.items())
