"""Tables that other programs really write, read to the same rows as a plain list of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.manifest_rows import rules

from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.rules import RowRules
from manifests.tables.readers import RawRow, read_rows

ROWS: list[dict[str, Any]] = [
    {"row_id": "a", "prompt": 'a "cat", and; a dog', "loras": ["cat", "dog"], "seed": 7,
     "width": 256, "shelf": "b, c"},
    {"row_id": "b", "prompt": "a dog|a dög", "loras": ["dog:0.5"], "seed": 2**53 - 1,
     "method": "merge"},
    {"row_id": "c", "prompt": "a cat", "loras": ["cat"], "seed": 0, "method": "single"},
]  # fmt: skip
LORAS_ONLY = ["cat", "dog:0.5"]
STRUCTS = [{"lora": "cat", "weight": None}, {"lora": "dog", "weight": 0.5}]


@pytest.fixture(scope="module")
def checked_against(tmp_path_factory: pytest.TempPathFactory) -> RowRules:
    return rules(tmp_path_factory.mktemp("catalog"))


@pytest.fixture
def check(checked_against: RowRules):
    def run(path: Path) -> CheckedManifest:
        checked = check_rows(read_rows(str(path)), checked_against)
        assert not checked.problems, [str(problem) for problem in checked.problems]
        return checked

    return run


@pytest.fixture
def expected(checked_against: RowRules) -> list[Any]:
    given = [RawRow(place="m", line=n, values=values) for n, values in enumerate(ROWS, 1)]
    checked = check_rows(given, checked_against)
    assert not checked.problems
    return said(checked)


def said(checked: CheckedManifest) -> list[tuple[str, str, str]]:
    return [(row.key, row.row_id, row.carried_json) for row in checked.rows]


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS)


def text_rows() -> list[dict[str, Any]]:
    """Return the rows with their LoRAs as one text, for formats without lists."""
    return [{**values, "loras": ";".join(values["loras"])} for values in ROWS]


def filtered() -> pd.DataFrame:
    return pd.concat([frame(), frame()]).iloc[3:]


def from_pandas(name: str, path: Path) -> Path:
    match name:
        case "csv":
            frame().to_csv(path / "m.csv", index=False)
        case "csv with an index":
            frame().to_csv(path / "m.csv")
        case "csv of a filtered frame":
            frame().set_axis([9, 4, 1]).to_csv(path / "m.csv")
        case "csv read and saved again":
            frame().to_csv(path / "first.txt")
            pd.read_csv(path / "first.txt").to_csv(path / "m.csv")
        case "csv for a German spreadsheet":
            frame().to_csv(path / "m.csv", sep=";", decimal=",", encoding="utf-8-sig")
        case "csv of NumPy arrays":
            frame().to_parquet(path / "first.bin")
            pd.read_parquet(path / "first.bin").to_csv(path / "m.csv")
        case "tsv":
            frame().to_csv(path / "m.tsv", sep="\t", index=False)
        case "packed csv":
            frame().to_csv(path / "m.csv.gz", index=False)
        case "parquet":
            frame().to_parquet(path / "m.parquet")
        case "parquet of a filtered frame":
            filtered().to_parquet(path / "m.parquet")
        case "parquet of nullable types":
            frame().convert_dtypes().to_parquet(path / "m.parquet")
        case "parquet of Arrow types":
            frame().convert_dtypes(dtype_backend="pyarrow").to_parquet(path / "m.parquet")
        case "parquet of categories":
            names = ["prompt", "method", "seed", "shelf", "row_id"]
            frame().astype(dict.fromkeys(names, "category")).to_parquet(path / "m.parquet")
        case _:
            frame().to_json(path / "m.jsonl", orient="records", lines=True)
    (path / "first.txt").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("csv", {}),
        ("csv with an index", {"": 3}),
        ("csv of a filtered frame", {"": 3}),
        ("csv read and saved again", {"": 3, "Unnamed: 0": 3}),
        ("csv for a German spreadsheet", {"": 3}),
        ("csv of NumPy arrays", {"": 3}),
        ("tsv", {}),
        ("packed csv", {}),
        ("parquet", {}),
        ("parquet of a filtered frame", {"__index_level_0__": 3}),
        ("parquet of nullable types", {}),
        ("parquet of Arrow types", {}),
        ("parquet of categories", {}),
        ("json lines", {}),
    ],
)
def test_pandas(check, expected, tmp_path, name, left_out):
    checked = check(from_pandas(name, tmp_path))
    assert said(checked) == expected
    assert checked.left_out == left_out


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "ndjson"])
def test_polars(check, expected, tmp_path, suffix):
    pl = pytest.importorskip("polars", reason="polars is a development dependency")
    path = tmp_path / f"m.{suffix}"
    table = pl.DataFrame(ROWS if suffix in ("parquet", "ndjson") else text_rows())
    match suffix:
        case "csv":
            table.write_csv(path, include_bom=True)
        case "tsv":
            table.write_csv(path, separator="\t")
        case "parquet":
            table.write_parquet(path)
        case _:
            table.write_ndjson(path)
    assert said(check(path)) == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
@pytest.mark.parametrize(
    "loras",
    [LORAS_ONLY, STRUCTS, {"lora": ["cat", "dog"], "weight": [None, 0.5]}],
    ids=["names", "structs", "struct of lists"],
)
def test_datasets(check, tmp_path, suffix, loras):
    datasets = pytest.importorskip("datasets", reason="datasets is a development dependency")
    datasets.disable_progress_bars()
    values = {"prompt": "a cat and a dog", "seed": 2**63 - 1, "loras": loras}
    path = tmp_path / f"m.{suffix}"
    getattr(datasets.Dataset.from_list([values] * 2), f"to_{suffix}")(path)
    first, second = check(path).rows
    assert first.key == second.key
    assert first.seed == 2**63 - 1
    assert [(lora.name, lora.weight) for lora in first.loras] == [("cat", 1.0), ("dog", 0.5)]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_duckdb(check, expected, tmp_path, suffix):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is a development dependency")
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(map(json.dumps, ROWS)))
    with duckdb.connect() as connection:
        table = connection.read_json(str(rows), format="newline_delimited")
        table.query("t", f"copy t to '{tmp_path}/m.{suffix}'")
    rows.unlink()
    assert said(check(tmp_path)) == expected


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
@pytest.mark.parametrize(
    "loras",
    [
        "[{'lora': 'cat', 'weight': null}, {'lora': 'dog', 'weight': 0.5}]",
        "map {'cat': 1, 'dog': 0.5}",
        "['cat', 'dog:0.5']",
    ],
)
def test_duckdb_structs_maps_and_decimals(check, tmp_path, suffix, loras):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is a development dependency")
    path = tmp_path / f"m.{suffix}"
    with duckdb.connect() as connection:
        connection.sql(
            f"copy (select 'a cat and a dog' prompt, 7::hugeint seed, {loras} loras, "
            f"256::decimal(9, 2) width, {{'num_steps': 30}} sampler) to '{path}'"
        )
    (made,) = check(path).rows
    assert (made.seed, made.width, made.sampler.num_steps) == (7, 256, 30)
    assert [(lora.name, lora.weight) for lora in made.loras] == [("cat", 1.0), ("dog", 0.5)]


SPREADSHEET = (
    'row_id;prompt;loras;seed;width;method;shelf;;\n'
    'a;"a ""cat"", and; a dog";cat|dog;7;256;;b, c;;\n'
    ';;;;;;;;\n'
    'b;a dog|a dög;dog:0.5;9007199254740991;;merge;;;\n'
    'c;a cat;cat;0;;single;;;\n'
)  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "sep=;\n", '"sep=;"\n', ";;;\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets(check, expected, tmp_path, start, end, encoding):
    text = (start + SPREADSHEET + ";;;;;;;;\n").replace("\n", end)
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    assert said(check(tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("prompt", pa.array(["a cat and a dog"], pa.string_view())),
        ("prompt", pa.array(["a cat and a dog"], pa.large_string())),
        ("prompt", pa.array(["a cat and a dog"]).dictionary_encode()),
        ("loras", pa.array([LORAS_ONLY], pa.list_view(pa.string()))),
        ("loras", pa.array([LORAS_ONLY], pa.large_list_view(pa.string_view()))),
        ("loras", pa.array([LORAS_ONLY], pa.list_(pa.dictionary(pa.int8(), pa.string())))),
        ("loras", pa.array([LORAS_ONLY], pa.list_(pa.string(), 2))),
        ("loras", pa.array([[("cat", None), ("dog", 0.5)]], pa.map_(pa.string(), pa.float32()))),
        ("loras", pa.array([{"lora": ["cat", "dog"], "weight": [None, 0.5]}])),
        ("seed", pa.array([7], pa.uint64())),
        ("seed", pa.array([7], pa.int8())),
        ("seed", pa.array([7.0], pa.float32())),
        ("seed", pa.array([7]).dictionary_encode()),
        ("seed", pa.array(["7"])),
        ("seed", pa.array([7], pa.int64()).cast(pa.decimal128(21, 2))),
    ],
)
def test_arrow_types(check, tmp_path, name, column):
    columns = {"prompt": ["a cat and a dog"], "loras": [LORAS_ONLY], "seed": [7], name: column}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    (made,) = check(tmp_path).rows
    assert (made.prompt, made.seed) == ("a cat and a dog", 7)
    assert [(lora.name, lora.weight) for lora in made.loras] == [("cat", 1.0), ("dog", 0.5)]


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([2.0**24 + 2], pa.float32()), "of so few bits from 16777216 on"),
        (pa.array([2048.0], pa.float16()), "of so few bits from 2048 on"),
        (pa.array([2.0**53]), "floating-point number from 2**53 on"),
        (pa.array([2**64 - 1], pa.uint64()), "should be at most 9223372036854775807"),
        (pa.array([-1]), "no seed is random"),
        (pa.array([True]), "should be a whole number"),
        (pa.array(["1e3"]), "should be written with all of its digits"),
    ],
)
def test_a_seed_column_that_cannot_be_exact_is_refused(checked_against, tmp_path, column, sentence):
    columns = {"prompt": ["a cat and a dog"], "loras": [LORAS_ONLY], "seed": column}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    (problem,) = check_rows(read_rows(str(tmp_path)), checked_against).problems
    assert problem.field == "seed"
    assert sentence in problem.problem
