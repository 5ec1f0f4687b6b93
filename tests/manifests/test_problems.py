"""Problems as people see them."""

import pickle

from manifests.text.problems import InputError, Problem, render
from manifests.text.text_rules import printable


def problem(line: int, **changes: object) -> Problem:
    values: dict = {"place": "cats.jsonl", "line": line, "field": "seed", "problem": "is wrong"}
    return Problem(**(values | changes))


def test_problems_stand_under_their_place():
    text = render(
        [
            problem(2, row_id="a b", field="row_id"),
            problem(4, field="(row)"),
            problem(3, place="loras.yaml", row_id="cat", noun="LoRA"),
            Problem(place="job.yaml", field="sede", problem="is not known"),
        ]
    )
    assert text.splitlines() == [
        "cats.jsonl: 2 problem(s); no image was made",
        "  line 2, row 'a b', row_id: is wrong",
        "  line 4, row without an id, (row): is wrong",
        "loras.yaml: 1 problem(s); no image was made",
        "  line 3, LoRA 'cat', seed: is wrong",
        "job.yaml: 1 problem(s); no image was made",
        "  sede: is not known",
    ]


def test_twenty_are_shown_and_the_rest_is_counted():
    lines = render([problem(line) for line in range(1, 333)]).splitlines()
    assert lines[0] == "cats.jsonl: 332 problem(s); no image was made"
    assert len(lines) == 22
    assert lines[-1] == "  ... and 312 more"


def test_an_input_error_keeps_its_problems_across_processes():
    error = pickle.loads(pickle.dumps(InputError([problem(1)])))  # noqa: S301
    assert error.problems == (problem(1),)
    assert "line 1" in str(error)


def test_what_a_terminal_would_obey_is_escaped_wherever_it_stands():
    hostile = "\x1b[2J\u202e\x9b"
    problem = Problem(place=hostile, line=1, row_id=hostile, field=hostile, problem=hostile)
    told = render([problem])
    assert told.replace("\n", "").isprintable()
    assert told.startswith("\\x1b[2J\\u202e\\x9b: 1 problem(s)")
    assert str(InputError([problem])) == told
    assert printable("a naïve cat, 猫") == "a naïve cat, 猫"
