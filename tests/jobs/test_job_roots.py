"""A service's allow-list holds for what a job names itself, and for its catalog and rows."""

from pathlib import Path

import pytest
from input_kit import row, write_job

from jobs.inputs import prepare
from jobs.job_file import load_job
from jobs.validate import validate
from manifests.problems import InputError


def refusals(job: Path) -> dict[str, str]:
    with pytest.raises(InputError) as caught:
        prepare(load_job(job), place=str(job))
    return {problem.field: problem.problem for problem in caught.value.problems}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLORA_ALLOWED_ROOTS", str(tmp_path / "open"))
    return tmp_path / "open"


def test_a_job_inside_is_as_without_a_list(folder: Path):
    assert validate(write_job(folder, [row()])) == 0


def test_every_place_of_a_job_is_judged_before_any_is_touched(folder: Path):
    job = write_job(
        folder,
        [row()],
        output="/srv/out",
        manifest="../rows.jsonl",
        loras="s3://bucket/loras.yaml",
        base_model="/models/sd15",
        base_models={"xl": "/models/sdxl", "in": str(folder / "base"), "hub": "owner/name@main"},
        scoring={"model": "/models/dino", "references_at": "/srv/references"},
    )
    found = refusals(job)
    assert set(found) == {
        "output",
        "manifest",
        "loras",
        "base_model",
        "base_models.xl",
        "scoring.model",
        "scoring.references_at",
    }
    assert all("outside the places that this service opens" in text for text in found.values())


def test_the_embedded_world_and_hub_models_are_no_places(folder: Path):
    values = {"prompt": "a cat", "loras": ["violet-cat"], "seed": 1, "method": "single"}
    job = write_job(folder, [values], base_model="emoji-world", loras="emoji-world")
    assert validate(job) == 0


def test_a_mask_outside_costs_its_row(folder: Path, tmp_path: Path):
    (tmp_path / "mask.png").write_bytes(b"secret")
    region = {"mask": str(tmp_path / "mask.png")}
    job = write_job(folder, [row(loras=[{"lora": "cat", "region": region}, "dog"]), row(seed=2)])
    found = refusals(job)
    assert set(found) == {"loras"}
    assert "mask.png' is outside the places that this service opens" in found["loras"]


def test_a_list_that_is_none_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    job = write_job(folder, [row()])
    monkeypatch.setenv("CLORA_ALLOWED_ROOTS", "data")
    assert "neither an absolute path nor a URI" in refusals(job)["CLORA_ALLOWED_ROOTS"]
