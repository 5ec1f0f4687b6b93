"""A service's allow-list holds for what a job names itself, and for its catalog and rows."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from input_kit import row, write_catalog, write_job

from jobs.commands.sweep import sweep
from jobs.commands.validate import validate
from jobs.console.evaluated import NoOutputError, evaluated
from jobs.job.catalog_spec import load_catalog, prepare_catalog
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from manifests.text.problems import InputError
from pipelines.storage.storage import open_storage
from pipelines.units.damages import Damages


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


@pytest.mark.parametrize(
    "model", ["owner/name@../../../mine/ref", "../models/x@main", "owner/..@main", "o/n@a/../b"]
)
def test_a_hub_name_cannot_lead_to_a_place(folder: Path, model: str):
    """The hub's client makes paths of owner, name and revision, beside its own cache."""
    for setting in ({"base_model": model}, {"scoring": {"model": model}}):
        path = write_job(folder, [row()], **setting)
        with pytest.raises(InputError):
            prepare(load_job(path), snapshot=lambda name: pytest.fail(f"asked the hub for {name}"))


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


def write_sweep(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.yaml"
    told = {"output": "out", "methods": ["merge"], "compositions": [["violet-cat", "husky-dog"]]}
    path.write_text(yaml.safe_dump(told | values))
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is not open, with a catalog, prompts and rows of somebody else."""
    write_catalog(tmp_path / "closed")
    (tmp_path / "closed/prompts.txt").write_text("a secret <lora:nobody:1>\n")
    (tmp_path / "closed/items.csv").write_text("item,loras,word\nmug,cat,secret\n")
    (tmp_path / "closed/items.yaml").write_text("items: secret\n")
    return tmp_path / "closed"


def test_a_sweep_inside_is_as_without_a_list_wherever_its_file_is(folder: Path, tmp_path: Path):
    assert sweep(write_sweep(folder)) == 0
    assert (folder / "out/job.yaml").is_file()
    assert sweep(write_sweep(tmp_path / "sent", output=str(folder / "other"))) == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("output", "{closed}/out"),
        ("output", "s3://bucket/out"),
        ("output", "../closed/out"),
        ("loras", "{closed}/loras.yaml"),
        ("base_model", "/models/sd15"),
        ("scoring", {"references_at": "/srv/references"}),
        ("compositions", [{"loras": ["violet-cat"], "prompt_file": "{closed}/prompts.txt"}]),
        ("compositions", [{"loras": ["violet-cat"], "prompt_file": "link.txt"}]),
    ],
)
def test_a_sweep_that_names_a_place_outside_writes_nothing_and_reads_nothing(
    folder: Path,
    outside: Path,
    setting: str,
    value: Any,
    capsys: pytest.CaptureFixture[str],
):
    text = yaml.safe_dump(value).replace("{closed}", str(outside))
    path = write_sweep(folder, **{setting: yaml.safe_load(text)})
    (folder / "link.txt").symlink_to(outside / "prompts.txt")
    before = sorted(folder.parent.rglob("*"))
    assert sweep(path) == 2
    told = capsys.readouterr().err
    assert "outside the places that this service opens" in told
    assert "secret" not in told
    assert "nobody" not in told
    assert sorted(folder.parent.rglob("*")) == before


def test_a_sweep_outside_is_told_beside_its_other_mistakes(
    folder: Path, outside: Path, capsys: pytest.CaptureFixture[str]
):
    """Then there is no job to be judged, and the catalog is judged by itself."""
    assert sweep(write_sweep(folder, scoring={"refs": 3}, loras=str(outside / "loras.yaml"))) == 2
    told = capsys.readouterr().err
    assert "scoring.refs: is not a known setting" in told
    assert "outside the places that this service opens" in told


def write_spec(folder: Path, **values: Any) -> Path:
    write_job(folder, [row()])
    job = yaml.safe_load((folder / "job.yaml").read_text())
    del job["manifest"]
    axes = {
        "items": [{"item": "mug", "loras": ["cat"]}],
        "scenes": [{"scene": "studio", "prompt": "a cat", "method": "single"}],
    }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(job | axes | values))
    return path


def test_a_catalog_spec_may_be_anywhere_and_what_it_names_may_not(folder: Path, tmp_path: Path):
    write_spec(folder)
    sent = write_spec(
        tmp_path / "sent",
        output=str(folder / "out"),
        loras=str(folder / "loras/loras.yaml"),
        base_model=str(folder / "base"),
    )
    for spec in (folder / "catalog.yaml", sent):
        assert len(prepare_catalog(load_catalog(spec), place=str(spec)).rows) == 1
    spec = write_spec(tmp_path / "sent")
    with pytest.raises(InputError) as caught:
        prepare_catalog(load_catalog(spec), place=str(spec))
    assert {problem.field for problem in caught.value.problems} == {"base_model", "loras", "output"}


@pytest.mark.parametrize("items", ["{closed}/items.csv", "{closed}/items.yaml", "link.csv", "more"])
def test_the_tables_of_a_catalog_spec_are_judged_before_they_are_read(
    folder: Path, outside: Path, items: str
):
    spec = write_spec(folder, items=items.format(closed=outside))
    (folder / "link.csv").symlink_to(outside / "items.csv")
    (folder / "more").mkdir()
    (folder / "more/link.csv").symlink_to(outside / "items.csv")
    with pytest.raises(InputError) as caught:
        load_catalog(spec)
    assert "outside the places that this service opens" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_references_that_a_run_record_names_are_judged(folder: Path, outside: Path):
    record = {"digests": {"dino": "d"}, "job": {"scoring": {"references_at": str(outside)}}}
    with pytest.raises(NoOutputError, match=r"references: .* outside the places"):
        evaluated(open_storage(str(folder)), record, Damages(note=print))
