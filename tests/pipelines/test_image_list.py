"""``images.csv`` says of each row of the manifest where its image is, or why there is none."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, Watcher, lora, request, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_engine import run_inline

from clora_core.recipe.row import Row
from pipelines.outputs.csv_text import cell, csv_lines
from pipelines.outputs.image_list import IMAGES_CSV, NOT_MADE
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.output_table import read_output_rows


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_inline(monkeypatch)
    return tmp_path / "out"


def compose(out: Path, manifest: Sequence[Row], **changes: Any) -> None:
    compose_rows(request(out, manifest, **changes), Watcher(), address=None)


def listed(out: Path) -> list[dict[str, str]]:
    with (out / IMAGES_CSV).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_for_each_row_of_the_manifest_in_its_order(out: Path):
    made = row(
        1, loras=(lora("cat", weight=0.5), lora("dog")), negative_prompt="blur",
        carried_json='{"client":"Müller, \\"& Co\\"","file":"mine","n":[1,2],"base_model":"xl"}',
    )  # fmt: skip
    bad = row(2, prompt=BAD_ROW, carried_json='{"is_urgent":true}')
    twin = row(1, loras=made.loras, negative_prompt="blur", key=made.key, row_id="twin")
    compose(out, [bad, made, twin])
    first, second, third = listed(out)
    assert first["row_id"] == "row-2"
    assert first["file"] == first["dino_min"] == ""
    assert first["failure"] == "prompt: PromptError: no subject in it"
    assert (first["base_model"], first["is_urgent"], first["client"]) == ("fake", "true", "")
    wanted = {
        "row_id": "row-1", "file": image_name(made.key), "prompt": "a cat and a dog",
        "negative_prompt": "blur", "loras": "cat:0.5;dog", "seed": "1", "method": "clora",
        "base_model": "xl", "width": "8", "height": "8", "failure": "", "key": made.key,
        "client": 'Müller, "& Co"', "carried.file": "mine", "n": "[1, 2]", "is_urgent": "",
    }  # fmt: skip
    assert {name: second[name] for name in wanted} == wanted
    assert (out / second["file"]).is_file()
    scores = read_output_rows(LocalStorage(out), ["dino_min", "dino_max"]).to_pylist()[0]
    for name, score in scores.items():
        assert second[name] == ("" if score is None else str(float(f"{score:.6g}")))
    assert (third["row_id"], third["file"], third["client"]) == ("twin", second["file"], "")


def test_it_follows_the_manifest_and_what_is_made(out: Path):
    compose(out, rows(2))
    # Nothing is made here, but the manifest is another one.
    compose(out, [row(1, carried_json='{"note":"b"}')])
    assert [(line["row_id"], line["note"]) for line in listed(out)] == [("row-1", "b")]
    (out / IMAGES_CSV).unlink()
    compose(out, [row(1, carried_json='{"note":"b"}')])
    assert len(listed(out)) == 1

    class Stops(Watcher):
        def stored(self, receipt: Any) -> None:
            super().stored(receipt)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose_rows(request(out, rows(12)), Stops(), address=None)
    reasons = {line["row_id"]: line["failure"] for line in listed(out)}
    assert len(reasons) == 12
    assert set(reasons.values()) == {"", NOT_MADE}
    assert reasons["row-0"] == ""


RISKY = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", "\uff1d1"]


@pytest.mark.parametrize("text", RISKY)
def test_no_text_is_a_formula_and_each_can_be_had_back(text: str):
    assert cell(text) == f"'{text}"
    (read,) = csv.reader(io.StringIO(csv_lines([[text, 1]]).decode(), newline=""))
    assert read == [f"'{text}", "1"]


@pytest.mark.parametrize("text", ["-5", "+1.5e3", "-.5", "plain", "'quoted'", "a=b", "2030-01-02"])
def test_numbers_and_other_texts_are_as_they_are(text: str):
    assert cell(text) == text


def test_values_of_json_are_cells():
    values = [None, True, -1.5, 0.1234567891234, 2**60, ["a", 1], {"b": "ü"}]
    shown = ["", "true", "-1.5", "0.1234567891234", str(2**60), '["a", 1]', '{"b": "ü"}']
    assert [cell(value) for value in values] == shown


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_text_comes_back(table: list[list[str]]):
    read = list(csv.reader(io.StringIO(csv_lines(table).decode(), newline="")))
    assert read == [[cell(text) for text in line] for line in table]
    assert all(shown in (text, f"'{text}") for line, texts in zip(read, table, strict=True)
               for shown, text in zip(line, texts, strict=True))  # fmt: skip


def test_data_frames_and_databases_read_it(out: Path):
    hostile = [
        row(n, carried_json=json.dumps({"note": text, "n": n - 1}, ensure_ascii=False))
        for n, text in enumerate(["=1+1", 'two\nlines, "quoted"', "猫"])
    ]
    compose(out, hostile)
    notes = ["'=1+1", 'two\nlines, "quoted"', "猫"]
    path = out / IMAGES_CSV
    frame = pytest.importorskip("polars").read_csv(path)
    assert frame["row_id"].to_list() == ["row-0", "row-1", "row-2"]
    assert frame["note"].to_list() == notes
    assert frame["n"].to_list() == [-1, 0, 1]
    pandas = pytest.importorskip("pandas")
    assert list(pandas.read_csv(path)["note"]) == notes
    assert list(pandas.read_csv(path)["seed"]) == [0, 1, 2]
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.read_csv(str(path)).project("row_id, note").fetchall()
    assert found == [(f"row-{n}", note) for n, note in enumerate(notes)]
