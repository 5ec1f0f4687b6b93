import json
from pathlib import Path

import numpy as np
import pytest
from engine_kit import NOW, commit, lora, row

import jobs.evaluated
from emoji_world import presence_file
from emoji_world.presence import judge, load_presence
from jobs.evaluated import evaluated, open_output
from jobs.report import report
from jobs.table import table
from pipelines.run_record import RunRecord, new_run_id, write_run_record
from pipelines.storage import LocalStorage


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    """Two methods' images, one pair of them of the embedded world's own instances."""
    storage = LocalStorage(tmp_path / "out")
    loras = (lora("violet-cat"), lora("husky-dog"))
    side = {"width": 64, "height": 64}
    commit(storage, "u1", [row(0, loras=loras, **side), row(1), row(2, **side)])
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


def test_the_judge_is_asked_about_instances_of_the_embedded_world_alone(
    output: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs.evaluated, "folder_digest", lambda _folder: "ab" * 32)
    results = evaluated(*open_output(output.uri)).results
    judged = [result for result in results if "presence_all" in result.values]
    assert {result.lora_set for result in judged} == {"violet-cat + husky-dog"}
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    (verdict,) = judge(load_presence(presence_file()), [noise])
    hits = [verdict.present[name] > 0.5 for name in ("violet-cat", "husky-dog")]
    for result in judged:
        assert result.values["presence_all"] == float(all(hits))
        assert result.values["presence_share"] == sum(hits) / 2


def test_images_of_another_base_model_are_not_judged(output: LocalStorage):
    results = evaluated(*open_output(output.uri)).results
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
