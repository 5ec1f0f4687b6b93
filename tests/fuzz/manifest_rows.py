"""Manifests of mutated rows, in three formats: every row is a row, or has a problem.

Rows checked many at once are those that are checked one by one, and so are their problems.

Values are mutated in all formats alike, and written as other programs write them; text files are
damaged byte by byte as well, and Parquet columns get types that no manifest should have.
"""

import csv
import datetime
import decimal
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from input_kit import row, write_catalog

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.key import sampler_json
from fuzz import written_values
from fuzz.mutations import JUNK_TEXTS, damaged, mutated
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import check_manifest, check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import read_rows
from manifests.text.problems import render
from manifests.text.whole_numbers import MAX_SEED

FORMATS = ("jsonl", "csv", "parquet")
SEEDS = (
    row(),
    row(row_id="a", method="merge", width=128, height=64),
    row(
        loras=["cat:0.5", {"lora": "dog", "weight": 1.0, "subject": "dog"}],
        sampler={"num_steps": 30},
    ),
    row(loras=["cat", "ink"], prompt="a cat", method="single", negative_prompt="blurry", shelf=4),
    row(loras=[{"lora": "cat", "region": [0.0, 0.0, 0.5, 1.0]}, "dog"], notes={"a": [1, None]}),
)
COLUMNS = (
    "prompt",
    "seed",
    "loras",
    "row_id",
    "base_model",
    "method",
    "width",
    "sampler",
    "negative_prompt",
    "x",
)


def rules(folder: Path) -> RowRules:
    """Return what the rows are checked against: a small catalog, written to ``folder``."""
    return RowRules(
        catalog=read_lora_catalog(str(write_catalog(folder))),
        lora_files=LoraFiles(),
        base_models={
            "": RowModel(
                digest="base",
                side_px=128,
                lora_fit=LoraFit(model_width=96),
                sampler=SamplerConfig(),
            )
        },
        method="clora",
        dtype="float32",
    )


def _rows(source: random.Random, num_rows: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for _ in range(num_rows):
        values: dict[str, Any] = dict(source.choice(SEEDS))
        for _ in range(source.randrange(1, 4)):
            changed = mutated(values, source)
            values = changed if isinstance(changed, dict) and changed else values
        if source.random() < 0.5:
            values = {**(values if source.random() < 0.3 else source.choice(SEEDS))}
            values |= _as_written(source)
        rows.append(values)
    return rows


def _as_written(source: random.Random) -> dict[str, Any]:
    """Return a few columns as other programs write them."""
    values = {
        "loras": written_values.loras(source),
        "seed": source.choice(written_values.SEEDS),
        "prompt": written_values.prompt(source),
        "negative_prompt": written_values.prompt(source),
        "sampler": source.choice(written_values.SAMPLERS),
        source.choice(written_values.INDEX_NAMES): written_values.index(source, 7),
    }
    return dict(source.sample(list(values.items()), source.randrange(1, 4)))


def _write_jsonl(path: Path, source: random.Random, num_rows: int) -> int | None:
    lines = [
        json.dumps(values, ensure_ascii=source.random() < 0.7) for values in _rows(source, num_rows)
    ]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    is_whole = source.random() < 0.5
    path.write_bytes(content if is_whole else damaged(content, source))
    return num_rows if is_whole else None


def _write_csv(path: Path, source: random.Random, num_rows: int) -> int | None:
    rows = _rows(source, num_rows)
    text = io.StringIO()
    delimiter = source.choice(",;\t|")
    text.write(source.choice(("", "", f"sep={delimiter}\n", f"{delimiter * 3}\n", "\ufeff")))
    names, blanks = [*COLUMNS], source.choice((0, 0, 3))
    index_name = source.choice((None, *written_values.INDEX_NAMES))
    is_tidy = source.random() < 0.5
    writer = csv.writer(text, delimiter=delimiter, escapechar=None if is_tidy else "\\")
    as_text = source.choice((repr, json.dumps))
    writer.writerow([*([] if index_name is None else [index_name]), *names, *[""] * blanks])
    for number, values in enumerate(rows):
        cells = [values.get(name, "") for name in names]
        texts = [cell if isinstance(cell, str) else as_text(cell) for cell in cells]
        lead = [] if index_name is None else [written_values.index(source, number)]
        writer.writerow([*lead, *texts, *[""] * blanks])
    content = text.getvalue().encode("utf-8", "surrogatepass")
    path.write_bytes(content if source.random() < 0.3 else damaged(content, source))
    return None  # a line break in a cell, or an empty row, makes other rows of it


_DAY = datetime.datetime(2020, 1, 2)
_ARROW: tuple[tuple[pa.DataType, Callable[[random.Random], Any]], ...] = (
    (pa.string(), lambda s: s.choice([t for t in JUNK_TEXTS if "\ud800" not in t])),
    (pa.large_string(), lambda s: s.choice(("a cat and a dog", "cat;dog", "merge", ""))),
    (pa.int64(), lambda s: s.choice((0, 7, -1, 2**63 - 1))),
    (pa.uint64(), lambda s: s.choice((7, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1))),
    (pa.float64(), lambda s: s.choice((7.0, -1.0, 2.0**53 - 1, 2.0**53, 2.0**63, 1e300))),
    (pa.decimal128(38, 2), lambda s: decimal.Decimal(s.choice((7, -1, 2**63 - 1, 2**64)))),
    (pa.string(), lambda s: str(s.choice(written_values.SEEDS))),
    (pa.string(), written_values.prompt),
    (pa.string_view(), written_values.prompt),
    (pa.string(), lambda s: repr(written_values.loras(s))),
    (pa.string(), lambda s: json.dumps(s.choice(written_values.SAMPLERS))),
    (pa.list_view(pa.string()), lambda s: s.choice((["cat"], ["cat", "dog"], [], [None]))),
    (
        pa.struct({"lora": pa.list_(pa.string()), "weight": pa.list_(pa.float64())}),
        lambda s: s.choice((
            {"lora": ["cat", "dog"], "weight": [0.5, None]}, {"lora": ["cat"], "weight": None},
            {"lora": ["cat"], "weight": []}, {"lora": [], "weight": []}, {"lora": None},
        )),
    ),
    (
        pa.map_(pa.string(), pa.float32()),
        lambda s: s.choice(([("cat", 0.5), ("dog", None)], [("cat", float("nan"))])),
    ),
    (pa.float32(), lambda s: s.choice((0.0, 7.0, 0.5, float("nan"), float("inf")))),
    (pa.bool_(), lambda s: s.random() < 0.5),
    (pa.binary(), lambda s: s.randbytes(s.randrange(9))),
    (pa.date32(), lambda _: _DAY.date()),
    (pa.timestamp("ns"), lambda s: s.choice((_DAY, s.randrange(2**60)))),
    (pa.timestamp("us", tz="UTC"), lambda s: s.randrange(-(2**62), 2**62)),
    (pa.duration("ns"), lambda s: s.randrange(2**60)),
    (pa.decimal128(10, 2), lambda _: decimal.Decimal("1.50")),
    (pa.list_(pa.string()), lambda s: s.choice((["cat"], ["cat", "dog"], [], [None]))),
    (pa.list_(pa.float64()), lambda s: s.choice(([0.0, 0.0, 1.0, 1.0], [float("nan")], []))),
    (
        pa.list_(pa.struct({"lora": pa.string(), "weight": pa.float64()})),
        lambda s: s.choice(([{"lora": "cat", "weight": None}], [{"lora": None}], [None])),
    ),
    (pa.map_(pa.string(), pa.int64()), lambda s: s.choice(([("steps", 3)], [("x", 1)], []))),
    (pa.struct({"steps": pa.int64()}), lambda s: s.choice(({"steps": 3}, {"steps": None}))),
    (pa.dictionary(pa.int8(), pa.string()), lambda s: s.choice(("a cat", "cat"))),
    (pa.null(), lambda _: None),
)  # fmt: skip
_GOOD = {
    "prompt": (pa.string(), lambda s: s.choice(("a cat and a dog", "a dog"))),
    "seed": (pa.int64(), lambda s: s.randrange(9)),
    "loras": (pa.list_(pa.string()), lambda s: s.choice((["cat", "dog"], ["dog"]))),
}


def _write_parquet(path: Path, source: random.Random, num_rows: int) -> int | None:
    columns: dict[str, pa.Array] = {}
    for name in (*COLUMNS, *written_values.INDEX_NAMES):
        is_good = name in _GOOD and source.random() < 0.8
        if not is_good and source.random() < 0.7:
            continue
        kind, value = _GOOD[name] if is_good else source.choice(_ARROW)
        values = [None if source.random() < 0.1 else value(source) for _ in range(num_rows)]
        columns[name] = pa.array(values, type=kind)
    columns = columns or {"x": pa.nulls(num_rows)}
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target, row_group_size=source.choice((7, 1000)))
    is_whole = source.random() < 0.8
    path.write_bytes(target.getvalue() if is_whole else damaged(target.getvalue(), source))
    return num_rows if is_whole else None


_WRITE = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}


def fuzz_rows(
    first: int, num_files: int, *, seed: int, folder: Path, rows_per_file: int = 50
) -> Counter[str]:
    """Return how many rows were good and how many problems were told, by format.

    Args:
        first: Number of the first file; each has a format in turn.
        num_files: How many files.
        seed: Of all of them.
        folder: Where they are written, one over the other.
        rows_per_file: Mutated rows in each.

    Raises:
        AssertionError: Naming the file, if a row was lost or anything else was raised.
    """
    counts: Counter[str] = Counter()
    checked_against = rules(folder / "catalog")
    for number in range(first, first + num_files):
        source = random.Random(f"{seed}/{number}")
        kind = FORMATS[number % len(FORMATS)]
        path = folder / f"rows.{kind}"
        try:
            num_whole = _WRITE[kind](path, source, rows_per_file)
            checked = check_manifest(str(path), checked_against)
            one_by_one = check_rows(read_rows(str(path)), checked_against, place=str(path))
            assert list(checked.rows) == list(one_by_one.rows)
            assert checked.problems == one_by_one.problems
            assert checked.left_out == one_by_one.left_out
            assert checked.carried == one_by_one.carried
            for resolved in checked.rows:
                assert 0 <= resolved.seed <= MAX_SEED
                for text in (resolved.prompt, resolved.row_id, resolved.negative_prompt):
                    text.encode()
                json.loads(resolved.carried_json.encode())
                json.loads(sampler_json(resolved.sampler).encode())
            for problem in checked.problems:
                str(problem).encode()
                assert len(str(problem)) < 20_000, problem
            render(checked.problems)
            bad_lines = {p.line for p in checked.problems if p.line is not None}
            if num_whole is not None and all(p.line is not None for p in checked.problems):
                assert len(checked.rows) + len(bad_lines) == num_whole
        except Exception as error:
            raise AssertionError(f"manifest file {number} of seed {seed}, {path}") from error
        counts[f"{kind} rows written"] += rows_per_file
        counts[f"{kind} good"] += len(checked.rows)
        counts[f"{kind} problems"] += len(checked.problems)
    return counts
