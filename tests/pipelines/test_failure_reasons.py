"""The reasons of failed rows, as a person reads them."""

from typing import Any

from pipelines.ledger.failure_reasons import reason_lines


def failed(row_id: str, message: str, stage: str = "prompt") -> dict[str, Any]:
    return {"row_id": row_id, "stage": stage, "error": "PromptError", "message": message}


def test_a_reason_comes_once_with_its_rows_and_the_most_frequent_first():
    errors = [failed("z", "rare"), *(failed(f"r{n}", "common") for n in range(5, 0, -1))]
    assert reason_lines(errors, rest="") == [
        "  5 x prompt, PromptError: common (rows r1, r2, r3 and 2 more)",
        "  1 x prompt, PromptError: rare (row z)",
    ]


def test_the_same_words_from_another_stage_are_another_reason():
    assert len(reason_lines([failed("a", "m"), failed("b", "m", stage="process")], rest="")) == 2


def test_ten_reasons_are_listed_and_where_the_others_are():
    errors = [failed(f"r{number:02}", f"m{number:02}") for number in range(12)]
    lines = reason_lines(errors, rest="`clora status out` lists them")
    assert lines[0] == "  1 x prompt, PromptError: m00 (row r00)"
    assert lines[-1] == "  ... and 2 more reason(s); `clora status out` lists them"
    assert len(lines) == 11
    assert len(reason_lines(errors, rest="", most=12)) == 12


def test_what_a_terminal_would_obey_is_not_shown_and_long_messages_are_cut():
    (line,) = reason_lines([failed("a\x1b[31m", "one\ntwo" + "x" * 1000)], rest="")
    assert line.isprintable()
    assert "one two" in line
    assert len(line) < 420
