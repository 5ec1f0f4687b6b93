"""Rows checked many at once: what they are one by one, in rows, problems and all that is said."""

import csv
import datetime
import decimal
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import write_catalog

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.map_sizes import MapGrid
from emoji_world import base_model_dir
from jobs.job.text_reader import spaces_part_tokens, text_reader
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows import check as manifest_check
from manifests.rows.bulk.findings import named_again
from manifests.rows.check import CheckedManifest, check_manifest, check_rows, check_tables
from manifests.rows.columns import ColumnNames
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.table_check import TableChecker
from manifests.tables import limits, splits
from manifests.tables.cell_codes import cell_codes
from manifests.tables.raw_rows import RawRow, RawTable
from manifests.tables.readers import read_rows, read_tables
from manifests.tables.splits import Split, manifest_splits, split_tables
from manifests.text.problems import Problem

FIT = LoraFit(model_width=96)
READER = text_reader(str(base_model_dir()))
GRID = MapGrid(latent_side=16, sides=(8, 16), image_scale=4)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RowRules:
    catalog = write_catalog(tmp_path_factory.mktemp("catalog"), ("cat", "dog", "polar bear"))
    small = RowModel(
        digest="small",
        side_px=64,
        lora_fit=FIT,
        sampler=SamplerConfig(long_prompts="chunk"),
        text=READER,
        maps=GRID,
    )
    return RowRules(
        catalog=read_lora_catalog(str(catalog)),
        lora_files=LoraFiles(),
        base_models={
            "": small,
            "strict": RowModel(
                digest="strict",
                side_px=64,
                lora_fit=FIT,
                sampler=SamplerConfig(long_prompts="refuse"),
                text=READER,
            ),
            "unread": RowModel(
                digest="unread",
                side_px=64,
                lora_fit=FIT,
                sampler=SamplerConfig(prompt_syntax="weighted"),
            ),
        },
        method="clora",
        dtype="float32",
    )


def assert_same(path: Path, rules: RowRules) -> CheckedManifest:
    """Check the manifest both ways, and return what is found."""
    found = check_manifest(str(path), rules)
    expected = check_rows(read_rows(str(path)), rules, place=str(path))
    assert list(found.rows) == list(expected.rows)
    assert found.problems == expected.problems
    assert found.left_out == expected.left_out
    assert found.carried == expected.carried
    return found


def mostly(good: Sequence[Any], bad: Sequence[Any] = ()) -> st.SearchStrategy[Any]:
    """Return one of ``good``, and now and then one of ``bad``."""
    return st.sampled_from([*list(good) * max(1, 8 * len(bad) // max(1, len(good))), *bad])


PROMPTS = (
    "a cat and a dog", "two Cats, a dog's bone", "a dog and a cat in place 12",
    "the <cat> cat and a <dog> dog", "a sks cat beside a dog " + "on and on " * 20,
    "a dog, a cat; and a polar  bear", "a na\u00efve cat and a dog", "\u732b cat \u72ac dog",
)  # fmt: skip
BAD_PROMPTS = (
    "a catwalk", "", "  ", "a (cat:1.3) and a dog", "a cat BREAK a dog", "x" * 4001, "a\ncat dog",
    "a cat\x00 and a dog", "-cat \"dog\"", "<CAT> cat, x<cat> cat dog", "a [cat] {dog}", None,
)  # fmt: skip
NAMES = st.lists(mostly(("cat", "dog"), ("polar bear", "ink", "cta", "cat:0.5", None)), max_size=3)
STRUCTS = st.lists(
    st.fixed_dictionaries(
        {
            "lora": mostly(("cat", "dog"), ("ink", None)),
            "weight": mostly((0.5, None), (0.0, -0.0, 99.0, float("nan"))),
            "trigger": mostly((None, "sks", "a sks cat plush"), ("(sks)",)),
            "subject": mostly((None,), ("dog", "cat")),
        }
    ),
    max_size=2,
)
STRUCT = pa.struct(
    {"lora": pa.string(), "weight": pa.float64(), "trigger": pa.string(), "subject": pa.string()}
)
TIMES = st.sampled_from((0, 1, 2**62, None))
COLUMNS: dict[str, Sequence[tuple[pa.DataType, st.SearchStrategy[Any]]]] = {
    "prompt": (
        (pa.string(), mostly(PROMPTS, BAD_PROMPTS)),
        (pa.dictionary(pa.int8(), pa.string()), mostly(PROMPTS)),
        (pa.large_string(), mostly(PROMPTS)),
        (pa.string_view(), mostly(PROMPTS, BAD_PROMPTS)),
    ),
    "seed": (
        (pa.int64(), mostly((0, 1, 2, 2**63 - 1), (-1, None))),
        (pa.float64(), mostly((0.0, 7.0), (0.5, 2.0**53, float("nan")))),
        (pa.float32(), mostly((0.0, 7.0), (2.0**24,))),
        (pa.uint64(), mostly((0, 7), (2**64 - 1,))),
        (pa.string(), mostly(("7", " 8 "), ("x", "1e9", "7.0", ""))),
        (pa.decimal128(20, 1), mostly((decimal.Decimal(7),), (decimal.Decimal("7.5"),))),
    ),
    "loras": (
        (pa.list_(pa.string()), NAMES),
        (pa.list_view(pa.string()), NAMES),
        (pa.string(), mostly(("cat;dog", "dog;cat"), ("cat; nobody", "[", None))),
        (pa.list_(STRUCT), STRUCTS),
        (STRUCT, STRUCTS.map(lambda structs: structs[0] if structs else None)),
        (
            pa.map_(pa.string(), pa.float32()),
            mostly(([("cat", 0.5), ("dog", None)],), ([("cat", float("nan"))], None)),
        ),
    ),
    "row_id": (
        (pa.string(), mostly([f"id {n}" for n in range(40)], ("", "a\nb", None, "\u3000"))),
        (pa.int64(), mostly(range(40), (None,))),
        (pa.bool_(), mostly((True, False))),
    ),
    "method": ((pa.string(), mostly(("clora", "merge", None), ("colra", "switch", ""))),),
    "negative_prompt": ((pa.string(), mostly(("", "blurry", None), ("(", "x " * 30, "\x07"))),),
    "base_model": ((pa.string(), mostly(("strict", "unread", None), ("", "nobody"))),),
    "width": (
        (pa.int32(), mostly((64, 128, None), (65,))),
        (pa.float64(), mostly((64.0, 128.0), (float("nan"), 64.5))),
    ),
    "sampler": (
        (pa.string(), mostly(('{"num_steps": 5}', None), ("{", '{"prompt_syntax": "weighted"}'))),
        (
            pa.struct({"num_steps": pa.int64(), "clip_skip": pa.int64()}),
            mostly(({"num_steps": 5},), ({"num_steps": 0}, {"clip_skip": 9}, None)),
        ),
    ),
    "shelf": (
        (pa.string(), mostly(("a", "\u00e9\"", None))),
        (pa.float64(), mostly((1.0, 0.5, -0.0, float("nan"), float("inf")))),
        (pa.timestamp("us"), TIMES),
        (pa.timestamp("ns", tz="UTC"), TIMES),
        (pa.date32(), mostly((datetime.date(2020, 1, 2), None))),
        (pa.struct({"a": pa.list_(pa.int8())}), mostly(({"a": [1, None]}, {"a": None}, None))),
        (pa.binary(), mostly((b"\xff", None))),
        (pa.list_(pa.bool_(), 2), mostly(([True, None], None))),
    ),
    "prompts": ((pa.string(), mostly((None, "a cat"))),),
    "size": ((pa.int64(), mostly((None, 64))),),
    "Unnamed: 0": ((pa.int64(), mostly((0, 1, 2), (-1, None))),),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    num_rows = draw(st.integers(1, 40))
    needed = ["prompt", "seed", "loras"]
    rare = draw(st.sets(st.sampled_from([*COLUMNS][3:-3]), max_size=4))
    wrong = draw(st.sets(st.sampled_from([*COLUMNS][-3:]), max_size=draw(st.sampled_from((0, 2)))))
    names = draw(st.permutations([*needed, *sorted(rare), *sorted(wrong)]))
    columns = {}
    for name in names:
        kind, values = draw(st.sampled_from(COLUMNS[name]))
        columns[name] = pa.array([draw(values) for _ in range(num_rows)], kind)
    return pa.table(columns)


@settings(max_examples=40, deadline=None)
@given(table=tables(), rows_per_group=st.sampled_from((7, 100)))
def test_rows_of_parquet_checked_at_once_are_those_that_are_checked_one_by_one(
    rules, table, rows_per_group
):
    batches = [
        RawTable(
            place="m.parquet",
            first_line=1 + start,
            batch=table.slice(start, rows_per_group).combine_chunks().to_batches()[0],
            exact_to={"seed": 2**24} if table["seed"].type == pa.float32() else {},
        )
        for start in range(0, len(table), rows_per_group)
    ]
    rows = [row for batch in batches for row in batch.rows()]
    expected = check_rows(rows, rules, place="m.parquet")
    found = check_tables(batches, rules, place="m.parquet")
    assert list(found.rows) == list(expected.rows)
    assert found.problems == expected.problems
    assert found.left_out == expected.left_out
    assert found.carried == expected.carried


@settings(max_examples=20, deadline=None)
@given(table=tables(), is_csv=st.booleans())
def test_rows_of_text_checked_at_once_are_those_that_are_checked_one_by_one(
    tmp_path_factory, rules, table, is_csv
):
    path = tmp_path_factory.mktemp("text") / ("m.csv" if is_csv else "m.jsonl")
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError):
        return
    if is_csv:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, table.schema.names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    assert_same(path, rules)


def ordinary(num_rows: int) -> pa.Table:
    """Return a manifest of a few kinds of rows, as people write them."""
    pairs = [("cat", "dog"), ("dog", "cat"), ("cat", "polar bear"), ("cat", "cat")][:3]
    return pa.Table.from_pylist(
        [
            {
                "row_id": f"row {number}",
                "prompt": f"a {one} and a {other} in the place that has the number {number}",
                "negative_prompt": "blurry",
                "loras": [one, other],
                "seed": number,
                "shelf": number % 7,
                "score": number / 7,
            }
            for number in range(num_rows)
            for one, other in [pairs[number % len(pairs)]]
        ]
    )


def written(table: pa.Table, path: Path, **options: Any) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".csv":
        rows = [{**row, "loras": ";".join(row["loras"])} for row in table.to_pylist()]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, table.schema.names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_of_an_ordinary_manifest_one_row_of_each_kind_is_looked_at_by_itself(
    tmp_path, rules, suffix
):
    path = written(ordinary(120), tmp_path / f"m{suffix}")
    checker, place, num_slow = TableChecker(rules), 0, 0
    for raw in read_tables(str(path)):
        checked = checker.check(raw, place)
        place += len(raw)
        num_slow += checked.num_slow
    assert (place, num_slow) == (120, 3)
    found = assert_same(path, rules)
    assert len(found.rows) == 120
    assert found.carried == ("shelf", "score")


def test_a_row_s_place_is_its_place_among_the_rows_that_were_read(tmp_path, rules):
    table = ordinary(6).set_column(1, "prompt", pa.array(["a cat and a dog", "no"] * 3))
    (raw,) = read_tables(str(written(table.slice(0, 2), tmp_path / "m.parquet")))
    checked = TableChecker(rules).check(raw, 100)
    assert checked.rows["place"].to_pylist() == [100]
    assert [place for place, _ in checked.problems] == [101, 101]
    assert checked.ids["place"].to_pylist() == [100, 101]


def test_a_checker_of_sent_rules_finds_the_same(tmp_path, rules):
    (raw,) = read_tables(str(written(ordinary(40), tmp_path / "m.parquet")))
    sent_rules, sent_raw = pickle.loads(pickle.dumps((rules, raw)))  # noqa: S301 - our own
    here, there = (
        TableChecker(each).check(rows, 0) for each, rows in ((rules, raw), (sent_rules, sent_raw))
    )
    assert there.rows.equals(here.rows)
    assert pickle.loads(pickle.dumps(there)).ids.equals(here.ids)  # noqa: S301 - our own


def test_splits_hold_each_row_once_and_know_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "SPLIT_ROWS", 20)
    table = ordinary(50)
    written(table, tmp_path / "a.parquet", row_group_size=8)
    written(table.slice(0, 3), tmp_path / "b.csv")
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    found = manifest_splits(str(tmp_path))
    assert [(each.first_row_group, each.num_row_groups, each.first_line) for each in found[:3]] == [
        (0, 3, 1), (3, 3, 25), (6, 1, 49),
    ]  # fmt: skip
    assert found[3] == Split(file=str(tmp_path / "b.csv"))
    assert "c.parquet cannot be read" in found[4].problem
    rows = [
        row
        for split in pickle.loads(pickle.dumps(found[:3]))  # noqa: S301 - our own
        for raw in split_tables(split)
        for row in raw.rows()
    ]
    assert rows == list(read_rows(str(tmp_path / "a.parquet")))


def test_an_id_that_two_files_use_names_the_first_of_them(tmp_path, rules):
    table = ordinary(9)
    written(table, tmp_path / "a.parquet")
    written(table.slice(0, 3), tmp_path / "b.parquet")
    other = table.slice(3, 3).set_column(4, "seed", pa.array([1, 2, 5]))
    written(other, tmp_path / "c.jsonl")
    found = assert_same(tmp_path, rules)
    assert len(found.rows) == 13
    assert [(each.line, each.row_id) for each in found.problems] == [(1, "row 3"), (2, "row 4")]
    assert f"is also the id of {tmp_path}/a.parquet, line 4" in found.problems[0].problem


def test_what_comes_after_too_many_problems_is_not_read(tmp_path, rules, monkeypatch):
    table = ordinary(30).set_column(1, "prompt", pa.array(["a cat and a polar bear", "no"] * 15))
    path = written(table, tmp_path / "m.parquet", row_group_size=4)
    for module in (limits, manifest_check):
        monkeypatch.setattr(module, "MAX_PROBLEMS", 9)
    found = assert_same(path, rules)
    assert "9 problems were found and the rest is not read" in found.problems[-1].problem


def test_names_that_mean_another_thing_after_the_rows_before_are_noticed(tmp_path, rules):
    table = ordinary(4).rename_columns({"negative_prompt": "neg"})
    (raw,) = read_tables(str(written(table, tmp_path / "m.parquet")))
    alone = TableChecker(rules).check(raw, 4)
    assert [each.problems[0].field for each in alone.named] == ["neg"]
    before = ColumnNames()
    before.named(next(iter(read_rows(str(written(ordinary(1), tmp_path / "m.parquet"))))))
    (again,) = named_again(alone.named, before)
    assert again.verdict != alone.named[0].verdict
    (same,) = named_again(alone.named, ColumnNames())
    assert (same.verdict, same.problems) == (alone.named[0].verdict, alone.named[0].problems)


def test_tables_that_are_given_are_checked_in_their_order(rules):
    raw = [RawRow(place="m", line=1, values=row) for row in ordinary(3).to_pylist()]
    problem = Problem(place="m", line=9, field="(row)", problem="is no row")
    found = check_tables([raw, [problem], raw], rules, place="m")
    assert [row.seed for row in found.rows] == [0, 1, 2, 0, 1, 2]
    assert found.problems == (problem,)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=40) | st.text(alphabet="cat <>l12'sS-,\u0301\u3000\u03a3", max_size=40)
)
def test_a_clip_tokenizer_has_the_tokens_of_the_words_between_spaces(text):
    tokens = READER.word_tokens(text.split(" "))
    assert tokens is not None
    spans = READER._spans(text)
    assert sum(tokens) == len(spans)
    assert READER.tokenize(text) == spans


def test_a_tokenizer_that_may_join_words_is_asked_for_whole_texts():
    described = json.loads(READER._tokenizer.to_str())
    assert spaces_part_tokens(described)
    for change in ({"pre_tokenizer": None}, {"normalizer": {"type": "NFC"}}):
        assert not spaces_part_tokens({**described, **change})


def test_cells_have_one_code_if_they_are_equal():
    lists = pa.array([["a", "b"], ["ab"], None, [], ["a", "b"], [None]])
    assert cell_codes(lists).tolist() == [0, 1, -1, 2, 0, 3]
    zeros = pa.array([{"x": 0.0}, {"x": -0.0}, {"x": None}, None, {"x": 0.0}])
    assert cell_codes(zeros).tolist() == [1, 2, 0, -1, 1]
    pairs = pa.array([[("a", 1)], [("a", None)], [("a", 1)]], pa.map_(pa.string(), pa.int8()))
    assert cell_codes(pairs).tolist() == [0, 1, 0]
