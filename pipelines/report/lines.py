"""Images side by side: a line is one prompt, LoRA set and seed, a cell one arm's image or its lack.

Lines are sorted and numbered, and so are their cells; a cell's number is where its provenance is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.evaluation.results import Result

_LOST = "damaged: neither its file nor its unit has the image that was committed"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of the output.

    Attributes:
        key: Of the row.
        score: DINO min; None if unknown.
        reason: Why there is no image; None if there is one.
    """

    key: str
    score: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """What all arms made of one prompt, LoRA set and seed."""

    prompt: str
    lora_set: str
    seed: int
    cells: Mapping[str, Cell] = field(default_factory=dict[str, Cell])


def report_arms(
    ranked: Sequence[str], results: Iterable[Result], failures: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Return all arms, those of ``ranked`` first, then methods that only ever failed."""
    made = {result.method for result in results}
    lost = sorted({error["method"] for error in failures} - made)
    return [*ranked, *lost]


def report_lines(
    results: Iterable[Result],
    failures: Iterable[Mapping[str, Any]],
    arms: Sequence[str],
    *,
    lost: Collection[str] = (),
) -> list[Line]:
    """Return the lines, sorted by LoRA set, prompt and seed.

    Args:
        results: Images.
        failures: Rows of ``schemas.ERRORS`` without an image. They know no settings, so one stands
            in the first arm of its method that has nothing on its line.
        arms: From ``report_arms``.
        lost: Keys of images that are damaged beyond their copies.
    """
    lines: dict[tuple[str, str, int], list[dict[str, Cell]]] = {}

    def place(where: tuple[str, str, int], names: Sequence[str], cell: Cell) -> None:
        """Put the cell where one of ``names`` is free; equal rows of other sizes get a new line."""
        rows = lines.setdefault(where, [])
        for cells in rows:
            free = next((name for name in names if name not in cells), None)
            if free is not None:
                cells[free] = cell
                return
        rows.append({names[0]: cell})

    for result in results:
        cell = Cell(
            key=result.key,
            score=result.values.get("dino_min"),
            reason=_LOST if result.key in lost else None,
        )
        place((result.lora_set, result.prompt, result.seed), [result.arm], cell)
    for error in failures:
        method = error["method"]
        names = [arm for arm in arms if arm == method or arm.startswith(f"{method} (")]
        reason = f"{error['stage']}, {error['error']}: {error['message']}"
        where = (" + ".join(error["loras"]), error["prompt"], error["seed"])
        place(where, names or [method], Cell(key=error["key"], reason=reason))
    return [
        Line(prompt=prompt, lora_set=lora_set, seed=seed, cells=cells)
        for (lora_set, prompt, seed), rows in sorted(lines.items())
        for cells in rows
    ]
