"""What is refused before anything is sent, and what is only said to be unknown."""

from pathlib import Path

import pytest
import yaml
from input_kit import row, write_base_model, write_job

from cluster import upload
from jobs.remote.preflight import check_before_sending


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def test_a_good_job_has_no_refusals_and_tells_size_and_output(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    found = check_before_sending(job, job.parent)
    assert not found.refusals
    assert "which fits Ray's 100 MiB" in found.notes[0]
    assert f"output {out}: can be written from here" in found.notes


def write_spec(tmp_path: Path, out: str) -> Path:
    """Write a catalog's spec, its items in a file beside it."""
    job = write_job(tmp_path / "sent", [row()], output=out)
    (job.parent / "items.csv").write_text("item,loras,subject\nmug,cat,cat\nhat,dog,dog\n")
    spec = job.parent / "catalog.yaml"
    values = {**yaml.safe_load(job.read_text()), "items": "items.csv", "method": "single"}
    del values["manifest"]
    values["scenes"] = [{"scene": "home", "prompt": "a {subject} at home"}]
    spec.write_text(yaml.safe_dump(values))
    return spec


def test_a_catalog_s_spec_is_checked_row_by_row_and_run_as_a_catalog(tmp_path: Path, out: str):
    spec = write_spec(tmp_path, out)
    found = check_before_sending(spec, spec.parent)
    assert not found.refusals
    assert found.command == "catalog"
    (spec.parent / "items.csv").write_text("item,loras,subject\nmug,cat,dog\n")
    changed = check_before_sending(spec, spec.parent)
    assert changed.content != found.content
    (refusal,) = changed.refusals
    assert "row 'mug/home/plain/0'" in refusal
    (spec.parent / ".gitignore").write_text("*.csv\n")
    assert any(
        text.startswith(f"items {spec.parent / 'items.csv'} stays behind")
        for text in check_before_sending(spec, spec.parent).refusals
    )


def test_a_job_is_run_as_one(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    assert check_before_sending(job, job.parent).command == "compose"


def test_too_large_a_folder_is_refused_with_its_largest_files(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    with (job.parent / "model.bin").open("wb") as file:
        file.truncate(upload.LIMIT_BYTES)
    (refusal,) = check_before_sending(job, job.parent).refusals
    assert "100.00 MiB  model.bin" in refusal


def test_relative_places_of_output_are_refused(tmp_path: Path):
    scoring = {"references": 0, "references_at": "refs"}
    job = write_job(tmp_path / "sent", [row()], output="out", scoring=scoring)
    output, references = check_before_sending(job, job.parent).refusals
    assert "output 'out' is relative" in output
    assert "scoring.references_at 'refs' is relative" in references


def test_an_input_that_is_ignored_is_refused_because_it_would_stay_behind(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    (job.parent / ".gitignore").write_text("*.jsonl\n")
    (refusal,) = check_before_sending(job, job.parent).refusals
    assert refusal.startswith(f"manifest {job.parent / 'rows.jsonl'} stays behind")


def test_an_output_that_nobody_can_write_here_is_unknown(tmp_path: Path):
    job = write_job(tmp_path / "sent", [row()], output="/no-such-disk/out")
    found = check_before_sending(job, job.parent)
    assert not found.refusals
    assert "output /no-such-disk/out: cannot be written from here; unknown for the cluster" in (
        found.notes
    )


@pytest.mark.parametrize(
    ("setting", "place"),
    [("base_model", "/no-such-disk/sd15"), ("base_model", "owner/name@main"),
     ("loras", "/no-such-disk/loras.yaml"), ("manifest", "/no-such-disk/rows.parquet")],
)  # fmt: skip
def test_what_only_the_cluster_has_is_not_checked_and_said_so(
    tmp_path: Path, out: str, setting: str, place: str
):
    job = write_job(tmp_path / "sent", [row()], output=out, **{setting: place})
    found = check_before_sending(job, job.parent)
    assert not found.refusals
    assert f"{setting} {place}: not on this machine, so not checked" in found.notes


def test_further_base_models_that_only_the_cluster_has_are_named_too(tmp_path: Path, out: str):
    named = {"xl": "/no-such-disk/sdxl", "hub": "owner/name@main", "toy": "emoji-world"}
    job = write_job(tmp_path / "sent", [row()], output=out, base_models=named)
    found = check_before_sending(job, job.parent)
    assert not found.refusals
    assert {note for note in found.notes if note.startswith("base_models")} == {
        "base_models.xl /no-such-disk/sdxl: not on this machine, so not checked",
        "base_models.hub owner/name@main: not on this machine, so not checked",
    }


def test_what_is_missing_in_the_folder_that_is_sent_is_refused(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out, base_model="none")
    (refusal,) = check_before_sending(job, job.parent).refusals
    assert "none is not a folder" in refusal


def test_a_lora_that_cannot_be_used_is_told_and_sent_all_the_same(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    (job.parent / "loras/cat.safetensors").write_bytes(b"nothing")
    found = check_before_sending(job, job.parent)
    assert not found.refusals
    assert any("LoRA 'cat'" in note and "its rows will fail" in note for note in found.notes)


def test_the_content_changes_with_what_is_read_where_not_all_can_be_checked(
    tmp_path: Path, out: str
):
    job = write_job(tmp_path / "sent", [row()], output=out, base_model="/no-such-disk/sd15")
    before = check_before_sending(job, job.parent).content
    assert before == check_before_sending(job, job.parent).content
    with (job.parent / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "a dog", "loras": ["dog"], "seed": 1}\n')
    assert check_before_sending(job, job.parent).content != before


def test_the_content_does_not_depend_on_where_the_base_model_lies(tmp_path: Path, out: str):
    job = write_job(tmp_path / "sent", [row()], output=out)
    write_base_model(tmp_path / "elsewhere")
    inputs = check_before_sending(job, job.parent).content["inputs"]
    (tmp_path / "other").mkdir()
    moved = write_job(
        tmp_path / "other", [row()], output=out, base_model=str(tmp_path / "elsewhere")
    )
    assert check_before_sending(moved, moved.parent).content["inputs"] == inputs
