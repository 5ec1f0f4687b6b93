"""CSV files as spreadsheets and data frames leave them; lines are those an editor shows."""

from pathlib import Path

import pytest
from input_kit import row, write_job

from jobs.commands.validate import validate
from manifests.tables.readers import RawRow, read_rows
from manifests.text.problems import Problem


@pytest.fixture
def read(tmp_path: Path):
    def run(text: str) -> list[RawRow | Problem]:
        path = tmp_path / "m.csv"
        path.write_text(text, newline="")
        return list(read_rows(str(path)))

    return run


def values(rows: list[RawRow | Problem]) -> list[dict]:
    assert all(isinstance(each, RawRow) for each in rows), list(map(str, rows))
    return [dict(each.values) for each in rows]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("prompt;loras;seed;a, b, c, d", "a cat, a dog;cat|dog;7;x"),
        ("prompt,loras,seed,a;b;c;d;e", '"a cat, a dog",cat|dog,7,x'),
        ("prompt|loras|seed", "a cat, a dog|cat|7"),
        ("prompt\tloras\tseed", "a cat, a dog\tcat\t7"),
        ('"prompt","loras","seed"', '"a cat, a dog","cat;dog","7"'),
        ('"a;b;c;d",prompt,loras,seed', 'x,"a cat, a dog",cat,7'),
    ],
)
def test_a_header_is_cut_into_the_columns_of_a_manifest(read, header, line):
    (found,) = values(read(f"{header}\n{line}\n"))
    assert found["prompt"] == "a cat, a dog"
    assert found["seed"] == "7"


def test_the_separator_of_a_sep_line_is_taken_whatever_the_header_holds(read):
    assert values(read("sep=;\na,prompt,seed;b\n1;2\n")) == [{"a,prompt,seed": "1", "b": "2"}]
    assert values(read("SEP=\t\nprompt\tseed\na\t2\n")) == [{"prompt": "a", "seed": "2"}]


def test_lines_are_counted_over_sep_lines_blank_lines_and_breaks_in_cells(read):
    text = 'sep=,\n\n"pro\nmpt",seed\n"a\nb",1\n,\n\nx\nc,2\n"d\r\ne\n",3\n'
    rows = read(text)
    assert [each.line for each in rows] == [5, 9, 10, 11]
    assert isinstance(rows[1], Problem)
    assert "has 1 cells and the header has 2" in rows[1].problem


def test_blank_cells_beyond_the_last_column_say_nothing(read):
    rows = read("prompt,seed,,\na,1,,\nb,2\nc,3,,,, ,\n")
    assert values(rows) == [{"prompt": p, "seed": s} for p, s in zip("abc", "123", strict=True)]


def test_a_cell_beyond_the_last_column_is_a_problem_of_its_row(read):
    good, bad = read("prompt,seed\na,1\na cat, b,2\n")
    assert isinstance(good, RawRow)
    assert isinstance(bad, Problem)
    assert "has 3 cells and the header has 2; put cells that hold the separator" in bad.problem


@pytest.mark.parametrize(
    "index", [("0", "1", "2"), ("5", "", "17"), ("1", "2", "3"), ("0.0", "1.0", "2.0")]
)
def test_a_first_column_without_a_name_that_holds_row_numbers_is_left_out(read, index):
    rows = read(",prompt,seed\n" + "".join(f"{number},a,1\n" for number in index))
    assert values(rows) == [{"prompt": "a", "seed": "1"}] * 3
    assert {each.left_out for each in rows} <= {("",), ()}


def test_several_indices_are_left_out(read):
    rows = read(",,Unnamed: 0,prompt\n0,7,3,a\n1,7,3,b\n")
    assert values(rows) == [{"prompt": "a"}, {"prompt": "b"}]
    assert rows[0].left_out == ("", "Unnamed: 0")


@pytest.mark.parametrize(
    ("text", "column", "line"),
    [
        (",prompt,seed\n0,a,1\nx,b,2\ny,c,3\n", 1, 3),
        ("prompt,,seed\na,,1\nb,4,2\nc,5,3\n", 2, 3),
        ("prompt,seed,,\na,1,,\nb,2,,9\n", 4, 3),
    ],
)
def test_a_column_without_a_name_that_says_something_is_one_problem(read, text, column, line):
    (problem,) = [each for each in read(text) if isinstance(each, Problem)]
    assert (problem.line, problem.field) == (1, "(header)")
    assert f"gives column {column} no name, and line {line} holds" in problem.problem
    assert "to_csv(index=False)" in problem.problem


def test_text_under_a_name_that_pandas_gave_is_carried(read):
    assert values(read("prompt,Unnamed: 1\na,x\n")) == [{"prompt": "a", "Unnamed: 1": "x"}]


def test_validate_says_which_row_numbers_are_left_out(tmp_path, capsys):
    index = {"Unnamed: 0": 3, "__index_level_0__": 5}
    assert validate(write_job(tmp_path, [row(), row(**index)], scoring={"references": 0})) == 0
    said = capsys.readouterr().out
    assert "left out:  row numbers in 'Unnamed: 0' (1 row(s)), '__index_level_0__'" in said
    assert validate(write_job(tmp_path, [row()], scoring={"references": 0})) == 0
    assert "left out" not in capsys.readouterr().out


def test_an_index_does_not_make_equal_rows_differ(tmp_path):
    rows = [row(row_id="a", **{"Unnamed: 0": number}) for number in range(2)]
    assert validate(write_job(tmp_path, rows, scoring={"references": 0})) == 0
