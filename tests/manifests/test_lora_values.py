"""Every form of a row's LoRAs says the same, and what is none of them is refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.rows.loras import requested_loras
from manifests.tables.readers import RawRow, read_rows

BOTH = [("cat", 0.5), ("dog", None)]


@pytest.mark.parametrize(
    "cell",
    [
        "cat:0.5;dog",
        "cat:0.5|dog",
        "cat:0.5, dog",
        "cat:0.5,dog,",
        "cat:0.5\r\ndog",
        '"cat:0.5; dog"',
        "['cat:0.5', 'dog']",
        "('cat:0.5', 'dog')",
        "['cat:0.5' 'dog']",
        "[cat:0.5, dog]",
        "[('cat', 0.5), 'dog']",
        "[{'lora': 'cat', 'weight': 0.5}\n {'lora': 'dog', 'weight': nan}]",
        "{'lora': ['cat', 'dog'], 'weight': [0.5, None]}",
        "{'lora': array(['cat', 'dog'], dtype=object), 'weight': array([0.5, nan])}",
        [("cat", 0.5), ("dog", None)],
        ("cat:0.5", "dog"),
        {"lora": ["cat", "dog"], "weight": [Decimal("0.5"), float("nan")]},
        {"lora": ["cat", "dog"], "weight": [0.5, None], "subject": None},
        [{"lora": "cat", "weight": Decimal("0.5"), "region": None}, "dog"],
    ],
)
def test_every_form_says_the_same(cell):
    requests, findings = requested_loras(cell)
    assert not findings
    assert [(request.lora, request.weight) for request in requests] == BOTH


@pytest.mark.parametrize("cell", [None, "", " ; ", "[]", [], {"lora": [], "weight": []}])
def test_no_loras(cell):
    assert requested_loras(cell) == ((), [])


@pytest.mark.parametrize(
    "cell",
    [
        {"cat": 0.5, "dog": None, "fox": float("nan")},
        {"cat": Decimal("0.50"), "dog": None},
        "{'cat': 0.5, 'dog': None}",
        '{"cat": 0.5, "dog": null}',
        "{'cat': 0.5, 'dog': NULL}",
    ],
)
def test_null_in_weights_by_name_is_a_lora_that_the_row_does_not_have(cell: Any):
    (cat,), findings = requested_loras(cell)
    assert not findings
    assert (cat.lora, cat.weight) == ("cat", 0.5)


@pytest.mark.parametrize("cell", [{"cat": None}, {"cat": None, "dog": float("nan")}, {}])
def test_weights_by_name_that_are_all_null_are_no_loras(cell: Any):
    assert requested_loras(cell) == ((), [])


WEIGHTS = [{"cat": 0.5}, {"dog": 1.0}, {"cat": 0.25, "dog": 0.75}]


def written_by_arrow(path: Path) -> None:
    pq.write_table(pa.table({"loras": WEIGHTS}), path)


def written_by_polars(path: Path) -> None:
    pl.from_dicts([{"loras": weights} for weights in WEIGHTS]).write_parquet(path)


def written_by_pandas(path: Path) -> None:
    pd.DataFrame({"loras": WEIGHTS}).to_parquet(path)


@pytest.mark.parametrize("write", [written_by_arrow, written_by_polars, written_by_pandas])
def test_each_row_of_a_table_of_weights_by_name_has_its_own_loras(tmp_path: Path, write: Any):
    write(tmp_path / "m.parquet")
    rows = [row for row in read_rows(str(tmp_path / "m.parquet")) if isinstance(row, RawRow)]
    assert len(rows[0].values["loras"]) == 2, "one type for all rows"
    requests = [requested_loras(row.values["loras"])[0] for row in rows]
    assert [{each.lora: each.weight for each in row} for row in requests] == WEIGHTS


def test_a_map_of_arrow_has_the_catalog_s_weight_where_it_says_null():
    kind = pa.map_(pa.string(), pa.float64())
    (cell,) = pa.array([[("cat", 0.5), ("dog", None)]], kind).to_pylist()
    requests, findings = requested_loras(cell)
    assert not findings
    assert [(request.lora, request.weight) for request in requests] == BOTH


def test_the_name_that_another_tool_has_for_lora_is_one_mistake_and_not_a_missing_lora():
    (request,), findings = requested_loras({"name": "cat"})
    assert request.lora == "cat"
    assert [field for field, _ in findings] == ["loras[0].name"]
    assert "did you mean 'lora'?" in findings[0][1]


def test_a_struct_of_lists_keeps_subjects_and_regions_with_their_lora():
    box = [0.0, 0.0, 0.5, 1.0]
    cell = {"lora": ["cat", "dog"], "subject": ["kitten", None], "region": [None, box]}
    (cat, dog), findings = requested_loras(cell)
    assert not findings
    assert (cat.subject, cat.region, dog.subject) == ("kitten", None, None)
    assert dog.region is not None
    assert dog.region.box == tuple(box)


@pytest.mark.parametrize(
    ("cell", "field", "sentence"),
    [
        ("cat:0,8;dog", "loras", "should write weights with a point, as in cat:0.8"),
        ("cat:0,8", "loras", "got 'cat:0,8'"),
        ({"lora": ["cat", "dog"], "weight": [0.5]}, "loras", "should have lists of one length"),
        ({"lora": ["cat", "dog"], "weight": 0.5}, "loras", "should have lists of one length"),
        ({"weight": 0.5}, "loras[0].lora", "is required and not given"),
        ([("cat", "dog")], "loras[0]", "got ('cat', 'dog')"),
        ("['cat', 'dog'", "loras", "no list as Python, NumPy or DuckDB write it"),
        (b"cat", "loras", "should be a list of names or structs"),
    ],
)
def test_what_is_no_list_of_loras_is_refused(cell, field, sentence):
    requests, findings = requested_loras(cell)
    assert not requests
    assert findings[0][0] == field
    assert sentence in findings[0][1]
