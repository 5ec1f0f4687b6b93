"""Rows come out of every format alike, and what cannot be read costs its own row alone."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.tables import parquet_rows
from manifests.tables.readers import RawRow, read_rows
from manifests.text.problems import Problem

ROWS = [
    {"prompt": "a cat, a dog", "seed": 1, "shelf": "ä"},
    {"prompt": 'a "cat"', "seed": 2},
    {"prompt": "a dog", "seed": 3, "shelf": "b"},
]


def values_of(path: Path | str) -> list[dict]:
    rows = list(read_rows(str(path)))
    assert all(isinstance(row, RawRow) for row in rows), rows
    return [dict(row.values) for row in rows]  # type: ignore[union-attr]


def only(path: Path | str) -> Problem:
    (problem,) = read_rows(str(path))
    assert isinstance(problem, Problem)
    return problem


def csv_text(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "seed", "shelf"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_all_formats_give_the_same_rows_without_their_nulls(tmp_path):
    parquet, jsonl, table = (tmp_path / name for name in ("m.parquet", "m.jsonl", "m.csv"))
    pq.write_table(pa.Table.from_pylist(ROWS, schema=pa.schema(
        {"prompt": pa.large_string(), "seed": pa.int64(),
         "shelf": pa.dictionary(pa.int8(), pa.string())})), parquet)  # fmt: skip
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    table.write_text(csv_text(ROWS), encoding="utf-8-sig")
    assert values_of(parquet) == values_of(jsonl) == ROWS
    assert values_of(table) == [row | {"seed": str(row["seed"])} for row in ROWS]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode())
    assert values_of(path) == ROWS[:1]


def test_packed_files_are_unpacked(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode()))
    assert values_of(path) == ROWS[:1]


def test_lines_are_those_an_editor_shows(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('prompt,seed\n"two\nlines",1\n\na,2\n')
    assert [row.line for row in read_rows(str(path))] == [2, 5]
    path = tmp_path / "m.jsonl"
    path.write_text('{"seed": 1}\n\n{"seed": 2}\n')
    assert [row.line for row in read_rows(str(path))] == [1, 3]


def test_a_csv_with_semicolons_is_read_by_its_header(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("prompt;loras;seed\na cat, a dog;cat|dog;1\n")
    assert values_of(path) == [{"prompt": "a cat, a dog", "loras": "cat|dog", "seed": "1"}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"not json", "is not valid JSON (Expecting value: line 1 column 1 (char 0)), got"),
        (b"[1]", "is the start of a JSON array; write one object per line"),
        (b"3", "is no JSON object"),
        (b'{"seed": 1, "seed": 2}', "'seed' is given twice"),
        (b'{"prompt": "\xff"}', "is not UTF-8 (byte 12)"),
        (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "is not valid JSON"),
    ],
)
def test_a_bad_line_is_told_and_the_next_is_read(tmp_path, line, sentence):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"seed": 1}\n' + line + b'\n{"seed": 3}\n')
    first, bad, last = read_rows(str(path))
    assert isinstance(first, RawRow)
    assert isinstance(last, RawRow)
    assert isinstance(bad, Problem)
    assert bad.line == 2
    assert sentence in bad.problem
    assert len(bad.problem) < 300


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"a,1,2", "has 3 cells and the header has 2"),
        (b"a", "has 1 cells and the header has 2"),
        (b"\xff,1", "is not UTF-8"),
        (b"a" * 200_000 + b",1", "is not valid CSV (field larger than field limit"),
    ],
)
def test_a_bad_csv_line_is_told_and_the_next_is_read(tmp_path, line, sentence):
    path = tmp_path / "m.csv"
    path.write_bytes(b"prompt,seed\na,1\n" + line + b"\nb,2\n")
    _, bad, last = read_rows(str(path))
    assert isinstance(bad, Problem)
    assert (bad.line, last.line) == (3, 4)
    assert sentence in bad.problem


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.csv", b"", "names no column; the first line of a CSV file does"),
        ("m.csv", b",,\n\n", "names no column"),
        ("m.csv", b"b,a,c,a\n1,2,3,4\n", "names 'a' twice; names are unique"),
        ("m.csv", b"sep=^\na^b\n", "names '^' as the separator"),
        ("m.csv", b"prompt,gr\xf6\xdfe\na cat,1\n", "is not UTF-8"),
        ("m.csv", "prompt,seed\n".encode("utf-16"), "is UTF-16 text"),
        ("m.parquet", b"PAR1 and nothing else", "cannot be read"),
        ("m.jsonl.gz", b"no gzip", "cannot be read"),
        ("m.xlsx", b"", "use .parquet, .csv or .jsonl"),
        ("m.parquet/readme.txt", b"", "holds no file that ends in"),
    ],
)
def test_a_file_that_is_no_manifest_is_told(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert sentence in only(tmp_path / name.partition("/")[0]).problem


def test_a_missing_file_is_told(tmp_path):
    assert "does not exist; check the path" in only(tmp_path / "m.csv").problem
    assert "no file matches" in only(tmp_path / "*.csv").problem


def test_an_unknown_store_is_told():
    assert "http:// cannot be read" in only("http://host/m.csv").problem


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    problem = only("s3://key:secret@bucket/m.csv")
    assert "holds credentials" in problem.problem
    assert "secret" not in problem.problem


def test_a_folder_and_a_glob_are_read_in_the_order_of_names(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "_hidden.jsonl", "readme.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": name}))
    assert [row["name"] for row in values_of(tmp_path)] == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert [row["name"] for row in values_of(tmp_path / "[ab].jsonl")] == ["a.jsonl", "b.jsonl"]
    assert len(values_of(tmp_path / "**" / "*.jsonl")) == 4


def test_parquet_values_that_python_cannot_hold_cost_their_row(tmp_path):
    path = tmp_path / "m.parquet"
    far = pa.array([0, 2**50, 1], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"seed": [1, 2, 3], "when": far}), path)
    first, bad, last = read_rows(str(path))
    assert isinstance(bad, Problem)
    assert bad.line == 2
    assert (first.line, last.line) == (1, 3)


def test_lists_structs_and_nans_of_parquet_are_plain_values(tmp_path):
    path = tmp_path / "m.parquet"
    loras = [[{"lora": "cat", "weight": 0.5}], [{"lora": "dog", "weight": None}]]
    pq.write_table(pa.table({"loras": loras, "seed": [float("nan"), 2.0]}), path)
    assert values_of(path) == [{"loras": loras[0]}, {"loras": loras[1], "seed": 2.0}]


def test_a_header_with_a_stray_carriage_return_is_told(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"prompt,se\red\na cat,1\n")
    problem = only(path)
    assert problem.field == "(header)"
    assert "is not valid CSV" in problem.problem


@pytest.mark.parametrize("rows_per_group", [1, 7, 1000])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("max_bytes", [2_000, 64 * 1024**2])
def test_parquet_rows_are_those_of_the_table_however_it_is_written_and_cut(
    tmp_path, monkeypatch, rows_per_group, use_dictionary, max_bytes
):
    monkeypatch.setattr(parquet_rows, "MAX_PIECE_BYTES", max_bytes)
    rows = [
        {
            "prompt": f"prompt {number % 3}",
            "loras": [{"lora": "cat", "weight": number / 2}, {"lora": f"dog {number}"}],
            "names": [f"name {number % 5}"] * (number % 4) or None,
            "bytes": b"x" * number,
            "shelf": None if number % 2 else {"row": "a", "notes": ["b", None]},
            "a.b": str(number),
        }
        for number in range(50)
    ]
    path = tmp_path / "m.parquet"
    table = pa.Table.from_pylist(rows).append_column("map", pa.array([[("k", "v")]] * 50, pa.map_(
        pa.string(), pa.string())))  # fmt: skip
    table = table.set_column(0, "prompt", table["prompt"].dictionary_encode())
    pq.write_table(
        table, path, row_group_size=rows_per_group, use_dictionary=use_dictionary,
        dictionary_pagesize_limit=64,
    )  # fmt: skip
    expected = [
        {name: value for name, value in row.items() if value is not None}
        for row in table.to_pylist()
    ]
    assert values_of(path) == expected


def test_a_parquet_column_whose_name_is_not_utf_8_is_a_problem(tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"shelf": ["a"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"shelf", b"sh\xd2lf"))
    (problem,) = read_rows(str(path))
    assert "has the name of a column that is not UTF-8" in str(problem)
