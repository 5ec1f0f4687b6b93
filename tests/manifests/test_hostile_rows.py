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

from manifests.loras import catalog
from manifests.loras.catalog import read_lora_catalog
from manifests.places.locations import LocationError
from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.row_check import RowChecker
from manifests.tables import csv_rows, parquet_rows
from manifests.tables import limits as manifest_limits
from manifests.tables.parquet_child import stream_file
from manifests.tables.readers import RawRow, read_rows
from manifests.text.wording import MAX_FINDINGS

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


def test_a_parquet_file_of_more_rows_than_are_read_is_refused_unread(check, tmp_path):
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"prompt": pa.nulls(10_000_001)}), path)
    (problem,) = check(path).problems
    assert "has 10,000,001 rows and at most 10,000,000 are read" in problem.problem


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


def test_a_quote_that_is_never_closed_ends_as_a_problem(check, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_LINE_BYTES", 10_000)
    good = "a cat and a dog on the beach,cat;dog,7\n"
    path = tmp_path / "m.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("prompt,loras,seed\n" + good * 1000 + '"' + 'x","y\n' * 100_000)
    checked = check(path)
    assert len(checked.rows) == 1000
    assert "is there a quote that is not closed?" in str(checked.problems[0])


def repeated(text: str, count: int) -> pa.DictionaryArray:
    """Return a column that holds a text once and says it ``count`` times."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def test_a_text_that_parquet_repeats_is_measured_before_it_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "MAX_PIECE_BYTES", 100_000)
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"prompt": repeated("x" * 40_000, 5000)}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    lengths: list[int] = []
    written_out = parquet_rows._written_out

    def watched(batch: pa.RecordBatch) -> pa.RecordBatch:
        lengths.append(len(batch))
        return written_out(batch)

    monkeypatch.setattr(parquet_rows, "_written_out", watched)
    assert len(list(read_rows(str(path)))) == sum(lengths) == 5000
    assert max(lengths) <= 2


@pytest.mark.parametrize("notes", [pa.list_(pa.string()), pa.list_view(pa.string_view())])
def test_a_row_of_parquet_that_is_too_large_costs_that_row_alone(
    check, tmp_path, monkeypatch, notes
):
    monkeypatch.setattr(parquet_rows, "MAX_PIECE_BYTES", 100_000)
    texts = [["x" * 300] * 400, ["x"], None]
    table = pa.Table.from_pylist([{**row(seed=n), "notes": each} for n, each in enumerate(texts)])
    table = table.set_column(3, "notes", pa.array(texts, notes))
    pq.write_table(table, tmp_path / "m.parquet")
    checked = check(tmp_path / "m.parquet")
    assert [each.seed for each in checked.rows] == [1, 2]
    assert "stands for more than 100,000 bytes" in str(checked.problems[0])


def test_a_row_group_of_too_many_values_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_limits, "MAX_GROUP_VALUES", 1000)
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"x": [[0] * 60] * 20}), path)
    sentence = "holds 1,200 values in one row group; at most 1,000 are read"
    with pytest.raises(LocationError, match=sentence):
        stream_file(str(path), io.BytesIO())


def test_a_catalog_as_a_parquet_file_has_the_same_limits(tmp_path, monkeypatch):
    path = tmp_path / "loras.parquet"
    entries = {"name": ["a", "b"], "uri": ["/a", "/b"], "subject": ["cat", "dog" * 50_000]}
    pq.write_table(pa.table(entries), path)
    monkeypatch.setattr(parquet_rows, "MAX_PIECE_BYTES", 100_000)
    (problem,) = read_lora_catalog(str(path)).problems
    assert problem.line == 2
    assert "stands for more than" in problem.problem
    monkeypatch.setattr(catalog, "MAX_ENTRIES", 1)
    assert "holds more than 1 LoRAs" in str(read_lora_catalog(str(path)).problems[0])


def test_a_million_unknown_fields_of_a_row_are_told_in_fifty(check, tmp_path):
    hostile = {f"field-{n}": 1 for n in range(100_000)}
    loras = [{"lora": "cat", **hostile}, "dog"]
    checked = check(write(tmp_path / "m.jsonl", [row(), row(loras=loras), row(seed=2)]))
    assert len(checked.rows) == 2
    assert len(checked.problems) == MAX_FINDINGS + 1
    assert "and 99,950 more names that may be wrong" in str(checked.problems[-1])


def test_long_lists_of_loras_are_not_remembered(tmp_path):
    checker = RowChecker(rules(tmp_path / "catalog"))
    for seed in range(3):
        long = row(loras=[{"lora": "cat", "subject": "x" * 20_000}], sampler={"y" * 20_000: seed})
        checker.check(RawRow(place="m", line=1, values=long))
    assert not checker._lora_lists
    assert not checker._samplers
