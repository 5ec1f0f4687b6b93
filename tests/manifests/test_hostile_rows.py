"""Rows of ten megabytes and more: each is a problem of its own, and its neighbours are read."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.manifest_rows import rules
from input_kit import row

from manifests import manifest_limits
from manifests.check import CheckedManifest, check_rows
from manifests.readers import read_rows

TEN_MEGABYTES = 10 * 1024**2


@pytest.fixture
def check(tmp_path: Path):
    checked_against = rules(tmp_path / "catalog")

    def run(path: Path) -> CheckedManifest:
        return check_rows(read_rows(str(path)), checked_against, place=str(path))

    return run


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["prompt", "loras", "seed"])
        writer.writeheader()
        writer.writerows({**values, "loras": ";".join(values["loras"])} for values in rows)
        path.write_text(text.getvalue())
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.parquet"])
@pytest.mark.parametrize(
    "hostile",
    [{"prompt": "a cat " * (TEN_MEGABYTES // 6)}, {"loras": ["cat"] * 1_000_000}],
    ids=["prompt", "list"],
)
def test_ten_megabytes_in_a_row_cost_that_row_alone(check, tmp_path, name, hostile):
    checked = check(write(tmp_path / name, [row(), row(**hostile), row(seed=2)]))
    assert len(checked.rows) == 2
    assert len(checked.problems) == 1
    assert len(str(checked.problems[0])) < 500


def test_lines_that_unpack_to_too_many_end_as_a_problem(check, tmp_path, monkeypatch):
    """The limits are lowered; a few kilobytes of gzip hold a thousand times as much."""
    monkeypatch.setattr(manifest_limits, "MAX_LINES", 100)
    for name, content in {
        "rows.jsonl.gz": "\n".join(json.dumps(row(seed=seed)) for seed in range(200)),
        "blank.jsonl.gz": "\n" * 200,
        "blank.csv.gz": "prompt,loras,seed\n" + "\n" * 200,
    }.items():
        path = tmp_path / name
        path.write_bytes(gzip.compress(content.encode()))
        problem = check(path).problems[-1]
        assert "has more than 100 lines" in problem.problem
        assert "split it" in problem.problem


def test_bytes_that_unpack_to_too_many_end_as_a_problem(check, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_limits, "MAX_UNPACKED_BYTES", 10_000)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 100_000 + b"\n{}"))
    assert "10,000 unpacked bytes" in check(path).problems[-1].problem


def test_a_parquet_file_of_more_rows_than_are_read_is_refused_unread(check, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_limits, "MAX_LINES", 100)
    path = write(tmp_path / "m.parquet", [row(seed=seed) for seed in range(101)])
    (problem,) = check(path).problems
    assert "has 101 rows and at most 100 are read" in problem.problem


def test_a_parquet_list_of_very_many_values_is_refused_unread(check, tmp_path):
    """Ten million nulls in one row take a few hundred bytes."""
    path = tmp_path / "m.parquet"
    column = pa.ListArray.from_arrays(
        pa.array([0, 10_000_000], pa.int32()), pa.nulls(10_000_000, pa.int8())
    )
    pq.write_table(pa.table({"prompt": ["a cat"], "seed": [1], "loras": column}), path)
    assert path.stat().st_size < 100_000
    (problem,) = check(path).problems
    assert "holds 10,000,000 values in 1 rows" in problem.problem


def test_more_problems_than_anyone_reads_are_not_kept(check, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_limits, "MAX_PROBLEMS", 50)
    problems = check(write(tmp_path / "m.jsonl", [row(seed=-1)] * 200)).problems
    assert len(problems) == 51
    assert "50 problems were found and the rest is not read" in problems[-1].problem
