"""A picture of an output, made again from nothing but what it says of itself."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from e2e.kit import committed, manifest, other_world, write_job
from engine_kit import NOW, ON_ONE_CPU, planned_table
from PIL import Image

from jobs.commands.render import likeness, render
from jobs.commands.report import report
from jobs.commands.show import show
from jobs.commands.table import table
from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import JobFile, load_job
from jobs.pictures.picture import read_picture, with_texts
from manifests.places.allowed_roots import VARIABLE
from pipelines.ledger.run_record import RunRecord, new_run_id, write_run_record
from pipelines.stages.commit import CommitUnits, commit_unit
from pipelines.stages.generate import generate_unit
from pipelines.stages.model_host import ModelHostSource
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.message import UnitFacts, UnitMessage

GATED = ("clora-gated", "freefuse")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> JobFile:
    """A job whose first two rows were made in one batch and the third on another base model.

    Further rows are of gated methods.
    """
    folder = tmp_path_factory.mktemp("render")
    one, other, third, *gated = manifest(5, method="clora", base_model=None)
    rows = [one, other, third | {"base_model": "other"}]
    rows += [row | {"method": method} for row, method in zip(gated, GATED, strict=True)]
    # A base model that is gone since must not keep the pictures of the others from being made.
    named = {"gone": str(other_world(folder / "gone", seed=1))}
    named |= {"other": str(other_world(folder / "other"))}
    job = load_job(write_job(folder, rows, base_models=named))
    compose(job, prepare(job))
    return job


def compose(job: JobFile, prepared: PreparedJob) -> None:
    engine = ModelHostSource(
        base_model_dirs={
            digest: model.place for digest, model in prepared.models_by_digest.items()
        },
        resources=job.resources,
    )(ON_ONE_CPU)
    storage = LocalStorage(Path(job.output))
    into = CommitUnits(storage=storage, run_id="run", dino_digest=None)
    for unit_id, rows in (
        ("u1", prepared.rows[:2]),
        ("u2", prepared.rows[2:3]),
        ("u3", prepared.rows[3:4]),
        ("u4", prepared.rows[4:]),
    ):
        unit = UnitMessage(unit_id=unit_id, rows=planned_table(rows), facts=UnitFacts())
        made = generate_unit(unit, engine)
        assert isinstance(commit_unit(made, into, now=NOW), pa.Table)
    record = RunRecord(
        run_id=new_run_id(NOW),
        started_at=NOW.isoformat(),
        num_rows=5,
        job=job.model_dump(mode="json"),
        digests={"base_model": prepared.models[""].facts.digest},
        base_models={name: model.facts.digest for name, model in prepared.models.items() if name},
    )
    write_run_record(storage, record)


def picture(job: JobFile, index: int = 0) -> Path:
    return Path(job.output) / image_name(key(job, index))


def key(job: JobFile, index: int) -> str:
    (found,) = (
        row["key"]
        for row in committed(Path(job.output)).to_pylist()
        if row["row_id"] == f"r{index}"
    )
    return found


def test_a_picture_made_again_alone_is_the_one_that_was_made_in_a_batch(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for index in range(2):
        again = tmp_path / f"again{index}.png"
        assert render(picture(job, index), out=again) == 0
        assert "the same picture" in capsys.readouterr().out
        old, new = (np.asarray(Image.open(path)) for path in (picture(job, index), again))
        assert likeness(old, new).largest <= 2
        texts = Image.open(again).text
        assert json.loads(texts["clora"])["key"] == key(job, index)


def test_a_picture_is_made_again_on_its_own_base_model_of_several(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.rmtree(job.base_models["gone"])
    again = tmp_path / "again.png"
    assert render(picture(job, 2), out=again) == 0
    assert "the same picture" in capsys.readouterr().out
    alone = job.model_copy(update={"base_models": {}}).model_dump(mode="json", exclude_none=True)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(alone))
    assert render(picture(job, 2), job_path=tmp_path / "job.yaml", out=again) == 2
    assert "name a job with the right one with --job" in capsys.readouterr().err


@pytest.mark.parametrize("index", [0, 3])
def test_maps_go_into_the_output_and_from_there_into_its_report(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], index: int
):
    path = picture(job, index)
    assert render(path, out=tmp_path / "again.png", maps=True) == 0
    assert "attention maps and masks" in capsys.readouterr().out
    sheet = Image.open(Path(job.output) / "maps" / f"{path.stem}.webp")
    assert sheet.width > sheet.height
    assert report(job.output) == 0
    details = (Path(job.output) / "report/data/details-0.js").read_text()
    assert details.count(f'"maps":"../maps/{path.stem}.webp"') == 1
    assert details.count('"maps":') == 5


def test_a_report_tells_the_arms_of_several_base_models_apart(job: JobFile):
    assert report(job.output) == 0
    page = (Path(job.output) / "report/index.html").read_text()
    for text in ("clora (on emoji-world)", "clora (on other)", "base model other"):
        assert text in page


def test_methods_without_masks_have_no_maps(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mine = read_picture(picture(job))
    merged = tmp_path / "merged.png"
    merged.write_bytes(with_texts(mine.pixels, mine.parameters, {**mine.recipe, "method": "merge"}))
    assert render(merged, maps=True) == 2
    told = capsys.readouterr().err
    assert "'merge' has no masks that follow attention maps; --maps is for clora, clora-no" in told


LEFT = '{"box":[0.0,0.0,0.5,1.0],"mode":"replace"}'
PLACED = {"loras": [{"region_json": LEFT}, {"region_json": LEFT}]}
ON_THE_WAY = {"sampler": {"gate_base_steps": 2, "gate_mask_source": "base"}}


@pytest.mark.parametrize(
    ("index", "changes", "why"),
    [
        (4, {}, "method 'freefuse' has no masks that follow .* --maps is for clora, .*clora-gated"),
        (3, ON_THE_WAY, r"made before its first step \(gate_base_steps 2\).*leave --maps out"),
        (
            3,
            PLACED | {"method": "clora-gated-no-update"},
            "regions are the masks of all its concepts.*leave --maps out",
        ),
    ],
)
def test_gated_rows_whose_masks_follow_no_maps_say_why(
    job: JobFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    index: int,
    changes: dict[str, Any],
    why: str,
):
    mine = read_picture(picture(job, index))
    given = dict(mine.recipe)
    pairs = zip(given["loras"], changes.get("loras", [{}, {}]), strict=True)
    loras = [lora | change for lora, change in pairs]
    sampler = given["sampler"] | changes.get("sampler", {})
    path = tmp_path / "gated.png"
    recipe = given | changes | {"loras": loras, "sampler": sampler}
    path.write_bytes(with_texts(mine.pixels, mine.parameters, recipe))
    assert render(path, maps=True) == 2
    assert re.search(why, capsys.readouterr().err)


def test_a_picture_of_before_whose_text_was_cut_says_that_it_will_be_another(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mine = read_picture(picture(job, 0))
    given = {name: value for name, value in mine.recipe.items() if name != "text_chunks"}
    path = tmp_path / "long.png"
    job_path = tmp_path / "job.yaml"
    job_path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_none=True)))
    long = {"prompt": given["prompt"] + " with palm trees and umbrellas and boats and birds"}
    for recipe, is_said in ((given, False), (given | long, True)):
        path.write_bytes(with_texts(mine.pixels, mine.parameters, recipe))
        render(path, job_path=job_path, out=tmp_path / "again.png")
        said = capsys.readouterr().err
        assert ("these are longer: expect another picture" in said) == is_said


def test_gated_rows_stand_in_the_table_and_the_report_with_the_figures_that_they_have(
    job: JobFile,
):
    rows = {row["row_id"]: row for row in committed(Path(job.output)).to_pylist()}
    assert len(rows["r3"]["mask_coverage"]) == len(rows["r3"]["mask_leakage"]) == 2
    assert rows["r4"]["mask_coverage"] == []
    assert rows["r4"]["mask_overlap"] is None
    assert report(job.output) == table(job.output) == 0
    kept = json.loads((Path(job.output) / "tables/table.json").read_text())
    assert {"clora-gated", "freefuse"} <= {arm["name"].split()[0] for arm in kept["arms"]}


def test_another_picture_is_told_apart(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The recipe of one picture in the pixels of another."""
    one, other = (Image.open(picture(job, index)) for index in range(2))
    from jobs.pictures.picture import with_texts

    forged = tmp_path / "forged.png"
    recipe = json.loads(other.text["clora"])
    forged.write_bytes(with_texts(np.asarray(one), other.text["parameters"], recipe))
    job_path = tmp_path / "job.yaml"
    job_path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_none=True)))
    assert render(forged, job_path=job_path, out=tmp_path / "again.png") == 1
    assert "another picture" in capsys.readouterr().out


def test_show_prints_infotext_and_recipe(job: JobFile, capsys: pytest.CaptureFixture[str]):
    assert show(picture(job)) == 0
    infotext, _, recipe = capsys.readouterr().out.partition("\n\n")
    assert "Composition: clora" in infotext
    assert json.loads(recipe)["seed"] == 0


def test_a_picture_that_cannot_be_made_here_says_why(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    assert render(plain) == show(plain) == 2
    assert "does not say how it was made" in capsys.readouterr().err
    lonely = tmp_path / "lonely.png"
    lonely.write_bytes(picture(job).read_bytes())
    assert render(lonely) == 2
    assert "lies in no output" in capsys.readouterr().err
    assert render(tmp_path / "none.png") == 2
    assert "does not exist" in capsys.readouterr().err


STRANGER = {
    "name": "x",
    "digest": "1" * 64,
    "kind": "style",
    "weight": 1,
    "subject": None,
    "trigger": None,
    "region_json": None,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_model_digest": "0" * 64}, "was made with the base model of digest 000000000000"),
        ({"method": "merge", "loras": [STRANGER]}, "has the tensors of 'x'"),
    ],
)
def test_other_files_than_the_picture_s_are_refused_by_digest(
    job: JobFile, tmp_path: Path, capsys: pytest.CaptureFixture[str], change, sentence: str
):
    mine = read_picture(picture(job))
    changed = Path(job.output) / "changed.png"
    changed.write_bytes(with_texts(mine.pixels, mine.parameters, {**mine.recipe, **change}))
    assert render(changed, out=tmp_path / "again.png") == 2
    assert sentence in capsys.readouterr().err


def test_a_service_judges_the_mask_that_a_picture_names_and_the_places_of_its_job(
    job: JobFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    given = read_picture(picture(job))
    region = {"mask": {"uri": "/etc/passwd", "sha256": "0"}, "mode": "restrict"}
    loras = [{**lora, "region_json": json.dumps(region)} for lora in given.recipe["loras"]]
    path = tmp_path / "masked.png"
    path.write_bytes(with_texts(given.pixels, given.parameters, {**given.recipe, "loras": loras}))
    job_path = Path(job.output).parent / "job.yaml"
    monkeypatch.setenv(VARIABLE, f"{tmp_path},{job_path.parent}")
    assert render(path, job_path=job_path) == 2
    assert "'/etc/passwd' is outside the places" in capsys.readouterr().err
    elsewhere = write_job(tmp_path / "job", manifest(1), base_model="/models/sd15")
    assert render(path, job_path=elsewhere) == 2
    assert "base_model: '/models/sd15' is outside the places" in capsys.readouterr().err
