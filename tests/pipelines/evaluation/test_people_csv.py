"""No text in a CSV for people is computed by a spreadsheet, and every text can be had again."""

import csv
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.evaluation.people_csv import csv_for_people, harmless_text

TEXTS = st.text(alphabet="=+-@\t\r\n;,'\" a1＝＠", max_size=12) | st.text()  # noqa: RUF001
SIGNS = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


def undone(text: str) -> str:
    """Return the text again, by the rule as the documentation has it."""
    return re.sub("(^|(?<=[;\t\r\n]))'(?=['\"]*[=+\\-@\t\r\n＝＋－＠])", "", text)  # noqa: RUF001


def read_again(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(\"http://x\")", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1",
        "＝1",  # noqa: RUF001
    ],
)  # fmt: skip
def test_a_text_that_a_spreadsheet_would_compute_has_a_quote_in_front(text: str):
    ((cell, number),) = read_again(csv_for_people([[text, -1.5]]))
    assert cell[0] == "'"
    assert undone(cell) == text
    assert number == "-1.5"


@pytest.mark.parametrize("text", ["a cat", "a-b = c", "'tis a cat", "", "a; b", '{"a": -1}'])
def test_other_texts_stand_as_they_are(text: str):
    assert harmless_text(text) == text


@example("a;=1+1")
@example("'=1")
@example(";\t'-1")
@given(TEXTS)
def test_every_text_can_be_had_again(text: str):
    assert undone(harmless_text(text)) == text


@example([["a;=cmd|' /C calc'!A0;b", 1]])
@example([['a;"=1+1'], ["a\t=1"], ["a\n=1"]])
@given(st.lists(st.lists(TEXTS | st.integers() | st.floats(), min_size=1, max_size=4), max_size=4))
def test_no_text_begins_a_cell_as_a_formula_whatever_separates_cells(lines: list[list[object]]):
    written = csv_for_people(lines)
    numbers = {str(cell) for line in lines for cell in line if not isinstance(cell, str)}
    for line in read_again(written):
        assert not any(cell.startswith(SIGNS) for cell in line if cell not in numbers)
    for line in read_again(written, ";"):
        for cell in line[1:]:  # the first begins as the line does
            assert not cell.startswith(SIGNS[:4] + SIGNS[7:])


@given(st.lists(st.lists(TEXTS | st.integers(), min_size=2, max_size=4), max_size=4))
def test_whoever_undoes_the_rule_has_every_line_again(lines: list[list[object]]):
    found = [list(map(undone, line)) for line in read_again(csv_for_people(lines))]
    assert found == [[str(cell) for cell in line] for line in lines]
