"""``python -m emoji_world.measures.eyes``: does the judge say what a person says?

``emoji_world.measures.eyes_draw`` makes a hundred pictures and sheets of them that say nothing of
the method. A person writes down for every instance whether one would recognise it and whether it is
clearly this individual, and for the picture whether a subject is doubled: once by the sheets of
the first order and once more by those of the second. This compares both looks with each other and
with the judge, by the share of equal answers and by Cohen's kappa, which leaves out what chance
agrees on. Pictures and answers are committed beside the code, ``eyes.webp`` and ``eyes.csv``.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoji_world import presence_file
from emoji_world.presence import FOUND, Verdict, is_doubled, judge, load_presence
from emoji_world.scenes import SIDE_PX, WIDE_PX

QUESTIONS = ("recognisable", "identity", "doubled")
LABELS = Path(__file__).parent / "eyes.csv"
PICTURES = Path(__file__).parent / "eyes.webp"
MOSAIC_COLUMNS = 10

Answers = dict[str, str]
"""A row of the table: an instance of a picture with what was said of it."""


def digest(picture: NDArray[np.uint8]) -> str:
    """Return the first 16 digits of the SHA-256 of the pixels."""
    return hashlib.sha256(picture.tobytes()).hexdigest()[:16]


def read_pictures(widths: Sequence[int], path: Path = PICTURES) -> list[NDArray[np.uint8]]:
    """Return the pictures of a mosaic, RGB [64, width, 3] each."""
    mosaic = np.asarray(Image.open(path).convert("RGB"))
    return [
        mosaic[top : top + SIDE_PX, left : left + width].copy()
        for number, width in enumerate(widths)
        for top in [number // MOSAIC_COLUMNS * SIDE_PX]
        for left in [number % MOSAIC_COLUMNS * WIDE_PX]
    ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two sets of answers agree on a question."""

    question: str
    between: str
    num_answers: int
    share: float
    kappa: float


def kappa(one: Sequence[bool], two: Sequence[bool]) -> float:
    """Return Cohen's kappa; nan where both always give the same answer."""
    first, second = np.asarray(one, float), np.asarray(two, float)
    equal = float((first == second).mean())
    chance = float(first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean()))
    return (equal - chance) / (1 - chance) if chance < 1 else float("nan")


def agreements(labels: Path = LABELS, pictures: Path = PICTURES) -> list[Agreement]:
    """Compare both looks with each other and the judge with them, for every question.

    Raises:
        ValueError: A picture is not the one that was looked at.
    """
    with labels.open(newline="") as opened:
        rows: list[Answers] = list(csv.DictReader(opened))
    verdicts = _verdicts(rows, labels, pictures)

    def judge_says(row: Answers, question: str) -> bool:
        verdict, name = verdicts[int(row["number"])], row["instance"]
        if question == "doubled":
            return is_doubled(verdict)
        return (verdict.present if question == "recognisable" else verdict.identity)[name] > FOUND

    return [
        agreement
        for question in QUESTIONS
        for agreement in _of_question(question, _asked(rows, question), judge_says)
    ]


def _verdicts(rows: Sequence[Answers], labels: Path, pictures: Path) -> dict[int, Verdict]:
    by_number: dict[int, list[Answers]] = {}
    for row in rows:
        by_number.setdefault(int(row["number"]), []).append(row)
    numbers, net = sorted(by_number), load_presence(presence_file())
    widths = [WIDE_PX if len(by_number[number]) > 2 else SIDE_PX for number in numbers]
    verdicts: dict[int, Verdict] = {}
    for number, picture in zip(numbers, read_pictures(widths, pictures), strict=True):
        if digest(picture) != by_number[number][0]["digest"]:
            raise ValueError(f"{pictures}: picture {number} is not the one in {labels}")
        [verdicts[number]] = judge(net, [picture])
    return verdicts


def _asked(rows: Sequence[Answers], question: str) -> list[Answers]:
    """Return the rows that a question was asked of: doubles are asked once a picture."""
    if question != "doubled":
        return list(rows)
    return list({row["number"]: row for row in reversed(rows)}.values())


def _of_question(
    question: str, rows: Sequence[Answers], judge_says: Callable[[Answers, str], bool]
) -> Iterator[Agreement]:
    one, two = ([row[f"{question}_{turn}"] == "1" for row in rows] for turn in (1, 2))
    judged = [judge_says(row, question) for row in rows]
    sure = [index for index in range(len(rows)) if one[index] == two[index]]
    for between, a, b in (
        ("first look, second look", one, two),
        ("judge, first look", judged, one),
        ("judge, second look", judged, two),
        ("judge, both looks where they agree", [judged[k] for k in sure], [one[k] for k in sure]),
    ):
        yield Agreement(
            question=question,
            between=between,
            num_answers=len(a),
            share=float(np.mean(np.equal(a, b))),
            kappa=kappa(a, b),
        )


def main() -> None:
    """Print how far the judge and a person agree."""
    print("| question | between | answers | equal | kappa |\n|---|---|--:|--:|--:|")
    for each in agreements():
        print(
            f"| {each.question} | {each.between} | {each.num_answers} | {each.share:.3f} "
            f"| {each.kappa:.2f} |"
        )


if __name__ == "__main__":
    main()
