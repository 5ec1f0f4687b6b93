import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from engine_kit import NOW, commit, lora, row
from PIL import Image

from emoji_world import base_model_dir, presence_file
from emoji_world.presence import judge, load_presence
from jobs.commands.report import report
from jobs.commands.table import table
from jobs.console.evaluated import evaluated, open_output
from manifests.weights.digests import folder_digest
from pipelines.ledger.run_record import RunRecord, new_run_id, write_run_record
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

SEES = Damages(note=print)


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    """Two methods' images, one pair of them of the embedded world's own instances."""
    return committed(tmp_path / "out")


def committed(folder: Path, **changes: str) -> LocalStorage:
    storage = LocalStorage(folder)
    loras = (lora("violet-cat"), lora("husky-dog"))
    side = {"width": 64, "height": 64, **changes}
    commit(storage, "u1", [row(0, loras=loras, **side), row(1, **changes), row(2, **side)])
    commit(storage, "u2", [row(0, method="merge", loras=loras, **side)])
    record = RunRecord(
        run_id=new_run_id(NOW), started_at=NOW.isoformat(), num_rows=4, job={}, digests={}
    )
    write_run_record(storage, record)
    return storage


def test_the_table_is_printed_and_written_beside_the_output(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    assert table(output.uri) == 0
    assert "| clora | 3 |" in capsys.readouterr().out
    told = json.loads(output.read("tables/table.json"))
    assert {arm["name"] for arm in told["arms"]} == {"clora", "merge"}
    assert output.read("tables/scores.csv").count(b"\n") == 5


def test_a_spreadsheet_computes_nothing_of_a_prompt_or_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    storage = LocalStorage(tmp_path / "out")
    prompt = '=HYPERLINK("http://example.com","a cat")'
    bad = row(0, prompt=prompt, row_id="@SUM(A1)", loras=(lora("-2+3"), lora("+1")))
    commit(storage, "u1", [bad, row(1)])
    record = RunRecord(
        run_id=new_run_id(NOW), started_at=NOW.isoformat(), num_rows=2, job={}, digests={}
    )
    write_run_record(storage, record)
    assert table(storage.uri) == 0
    assert "' stands before what one would compute" in capsys.readouterr().out
    for name in ("scores.csv", "table.csv"):
        text = storage.read(f"tables/{name}").decode()
        for line in csv.reader(io.StringIO(text, newline="")):
            assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in line)
            assert not any(cell.startswith("-") and not is_number(cell) for cell in line)
    (shown,) = [
        line
        for line in csv.DictReader(io.StringIO(storage.read("tables/scores.csv").decode()))
        if line["key"] == bad.key
    ]
    assert (shown["prompt"], shown["row_id"]) == (f"'{prompt}", "'@SUM(A1)")
    exact = read_output_rows(storage, ["key", "prompt"]).to_pylist()
    assert prompt in {line["prompt"] for line in exact}


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_the_judge_is_asked_about_instances_of_the_embedded_world_alone(
    tmp_path: Path,
):
    embedded = folder_digest(base_model_dir())
    output = committed(tmp_path / "out", base_model_digest=embedded)
    results = evaluated(*open_output(output.uri, SEES), SEES).results
    judged = [result for result in results if "presence_all" in result.values]
    assert {result.lora_set for result in judged} == {"violet-cat + husky-dog"}
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (verdict,) = judge(load_presence(presence_file()), [noise])
    hits = [verdict.present[name] > 0.5 for name in ("violet-cat", "husky-dog")]
    for result in judged:
        assert result.values["presence_all"] == float(all(hits))
        assert result.values["presence_share"] == sum(hits) / 2


def test_images_of_another_base_model_are_not_judged(output: LocalStorage):
    results = evaluated(*open_output(output.uri, SEES), SEES).results
    assert not any("presence_all" in result.values for result in results)


def test_the_report_tells_what_the_run_was_made_with(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    assert report(output.uri) == 0
    assert "4 images, 0 failed rows" in capsys.readouterr().out
    page = output.read("report/index.html").decode()
    assert "<h1>out</h1>" in page
    assert "latest run" in page


@pytest.mark.parametrize("command", [table, report])
def test_a_folder_without_runs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command
):
    assert command(str(tmp_path / "none")) == 2
    assert "no run has written here" in capsys.readouterr().err


def test_a_clip_model_adds_how_well_images_show_their_prompts(
    output: LocalStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """One score a row, for its own prompt; what the model computes is tested where it lives."""

    class Length:
        def scores(self, images: list[np.ndarray], prompts: list[str]) -> np.ndarray:
            return np.array([len(p) + i.mean() for i, p in zip(images, prompts, strict=True)])

    monkeypatch.setattr("clora_core.clip.ClipScorer.load", lambda _folder: Length())
    told = evaluated(*open_output(output.uri, SEES), SEES, clip_model=str(tmp_path))
    rows = {row["key"]: row for row in read_output_rows(output, ["key", "prompt"]).to_pylist()}
    for result in told.results:
        pixels = np.asarray(Image.open(Path(output.uri) / image_name(result.key)).convert("RGB"))
        wanted = len(rows[result.key]["prompt"]) + pixels.mean()
        assert result.values["clip_text"] == pytest.approx(wanted)
    assert "clip_text" in told.comparison.arms[0].means


@pytest.mark.parametrize("command", [table, report])
def test_a_folder_without_a_clip_model_is_told(
    output: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str], command
):
    assert command(output.uri, clip_model=str(tmp_path / "none")) == 2
    assert "none is no CLIP model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["clip", "clip/config.json"])
def test_a_pipe_for_a_clip_model_is_no_model(
    output: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    assert table(output.uri, clip_model=str(tmp_path / "clip")) == 2
    assert "clip is no CLIP model" in capsys.readouterr().err
