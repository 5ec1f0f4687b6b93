"""The job file: defaults that fit the base model, and every mistake told by name."""

from pathlib import Path

import pytest
import yaml
from input_kit import row, write_base_model, write_job, write_scorer

from clora_core.recipe.config import SamplerConfig, sampler_preset
from jobs.job.inputs import prepare
from jobs.job.job_file import JobFile, ScoringSettings, load_job, parse_job
from jobs.job.model_names import is_hub_name
from jobs.job.run_request import run_request
from manifests.text.problems import InputError, Problem
from manifests.weights.model_config import BaseModelProblem
from pipelines.ledger.failure_budget import FailureBudget
from pipelines.session.resources import Resources

MINIMAL = {"manifest": "m.csv", "output": "out"}


def problems_of(values: object) -> dict[str, Problem]:
    with pytest.raises(InputError) as caught:
        parse_job(values, place="/jobs/job.yaml")
    return {problem.field: problem for problem in caught.value.problems}


def job(**changes: object) -> JobFile:
    return parse_job(MINIMAL | changes, place="/jobs/job.yaml")


def test_a_minimal_job_runs_on_the_embedded_world():
    assert job().uses_emoji_world
    assert job().catalog == "emoji-world"
    assert job().sampler_config() == sampler_preset("emoji")
    assert job().scoring.references is None


def test_another_base_model_gets_the_papers_sampler_and_no_catalog():
    other = job(base_model="sd15")
    assert other.base_model == "/jobs/sd15"
    assert other.catalog is None
    assert other.sampler_config() == sampler_preset("paper")


def test_sampler_settings_change_the_preset():
    assert job(sampler={"num_steps": 40}).sampler_config() == SamplerConfig.resolve(
        {"preset": "emoji", "num_steps": 40}
    )
    assert job(sampler={"preset": "paper"}).sampler_config() == sampler_preset("paper")


def test_relative_places_start_at_the_job_file(tmp_path):
    path = tmp_path / "deep" / "job.yaml"
    path.parent.mkdir()
    values = MINIMAL | {"loras": "../l.yaml", "scoring": {"model": "dino"}}
    path.write_text(yaml.safe_dump(values))
    loaded = load_job(path)
    assert loaded.manifest == str(tmp_path / "deep/m.csv")
    assert loaded.loras == str(tmp_path / "l.yaml")
    assert loaded.scoring.model == str(tmp_path / "deep/dino")


def test_further_base_models_are_named_like_the_first():
    named = {"a": "sd15", "b": "owner/name@main", "c": "emoji-world", "d": "s3://b/sdxl"}
    assert job(base_model="base", base_models=named).models == {
        "": "/jobs/base",
        "a": "/jobs/sd15",
        "b": "owner/name@main",
        "c": "emoji-world",
        "d": "s3://b/sdxl",
    }


def test_each_base_model_starts_from_its_own_preset_unless_the_job_names_one():
    several = {"base_model": "sd15", "base_models": {"toy": "emoji-world"}}
    assert job(**several).sampler_config() == sampler_preset("paper")
    assert job(**several).sampler_config("toy") == sampler_preset("emoji")
    one = job(**several, sampler={"preset": "paper"})
    assert one.sampler_config("toy") == sampler_preset("paper")


def test_settings_must_hold_on_every_base_model():
    few = {"sampler": {"num_steps": 20}, "base_models": {"portraits": "sd15"}}
    assert "guide_until_step (25) must be" in problems_of(MINIMAL | few)["sampler"].problem
    unknown = few | {"sampler": {"num_step": 20}}
    assert list(problems_of(MINIMAL | unknown)) == ["sampler.num_step", "sampler"]


def test_mistakes_among_further_base_models_are_told_where_they_are():
    gone = "runwayml/stable-diffusion-v1-5@main"
    named = {"a": gone, "b": "owner@main", "c": 3, "d;e": "sd15", "f": ""}
    found = problems_of(MINIMAL | {"base_models": named})
    assert set(found) == {
        "base_models.a",
        "base_models.b",
        "base_models.c",
        "base_models.d;e.[key]",
        "base_models.f",
    }
    assert "use stable-diffusion-v1-5" in found["base_models.a"].problem
    assert "without ; | : ," in found["base_models.d;e.[key]"].problem


def test_uris_and_hub_models_stay_as_they_are():
    other = job(manifest="s3://b/m.parquet", base_model="owner/name@main")
    assert other.manifest == "s3://b/m.parquet"
    assert other.base_model == "owner/name@main"


def test_every_mistake_of_a_job_is_told_at_once():
    found = problems_of(
        {
            "manifests": "m.csv",
            "output": "out",
            "method": "colra",
            "sampler": {"preset": "papre", "x": 1},
            "scoring": {"reference": 5},
            "resources": {"actors": 0, "rows_per_unt": 1},
        }
    )
    assert set(found) == {
        "manifests",
        "method",
        "sampler.preset",
        "sampler.x",
        "scoring.reference",
        "resources.actors",
        "resources.rows_per_unt",
    }
    assert "did you mean 'manifest'?" in found["manifests"].problem
    assert "did you mean 'clora'?, got 'colra'" in found["method"].problem
    assert "did you mean 'references'?" in found["scoring.reference"].problem
    assert "did you mean 'rows_per_unit'?" in found["resources.rows_per_unt"].problem


def test_an_unknown_sampler_setting_comes_with_the_nearest():
    found = problems_of(MINIMAL | {"sampler": {"num_step": 1, "temperature": -1}})
    assert "did you mean 'num_steps'?" in found["sampler.num_step"].problem
    assert "greater than 0, got -1" in found["sampler.temperature"].problem


def test_a_model_that_left_the_hub_comes_with_its_new_name():
    found = problems_of(MINIMAL | {"base_model": "runwayml/stable-diffusion-v1-5@main"})
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in found["base_model"].problem


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("manifest: [", "is not valid YAML"),
        ("a: 1\na: 2", "line 2: is not valid YAML: 'a' is given twice"),
        ("", "should be a mapping"),
        ("- 1", "should be a mapping"),
    ],
)
def test_a_file_that_is_no_job_is_told(tmp_path, text, sentence):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_job(path)


def test_a_missing_job_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml does not exist"):
        load_job(tmp_path / "none.yaml")


def test_every_setting_is_told_what_it_does():
    for model in (JobFile, ScoringSettings, Resources, FailureBudget):
        for name in model.model_fields:
            assert f"\n        {name}: " in (model.__doc__ or ""), f"{model.__name__}.{name}"


def test_windows_are_scored_unless_the_job_leaves_them_out(tmp_path):
    for number, (scoring, scored) in enumerate([({}, True), ({"windows": False}, False)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        job = load_job(write_job(folder, [row()], scoring=scoring))
        assert run_request(job, prepare(job)).scores_windows == scored


def test_rows_get_the_base_models_size_and_the_jobs_sampler(tmp_path):
    path = write_job(tmp_path, [row(), row(seed=8, sampler={"num_steps": 26})], method="merge")
    prepared = prepare(load_job(path))
    first, second = prepared.rows
    assert (first.width, first.method) == (128, "merge")
    assert first.sampler == sampler_preset("paper")
    assert second.sampler.num_steps == 26
    assert prepared.scoring.model_dir is None
    assert "names no DINO model" in prepared.scoring.statement


def test_another_base_model_makes_other_keys(tmp_path):
    path = write_job(tmp_path, [row()])
    before = prepare(load_job(path)).rows[0].key
    assert prepare(load_job(path)).rows[0].key == before
    write_base_model(tmp_path / "base", sample_size=32)
    assert prepare(load_job(path)).rows[0].key != before


def test_rows_of_several_base_models_are_those_of_jobs_with_one_each(tmp_path: Path):
    """Keys, sizes and settings; a single job's keys are those of a job that knows no others."""
    write_base_model(tmp_path / "other", sample_size=32)
    values = [row(seed=seed) for seed in range(3)]
    alone = {
        name: prepare(load_job(write_job(tmp_path, values, base_model=name))).rows
        for name in ("base", "other")
    }
    mixed = [values[0], values[1] | {"base_model": "big"}, values[2] | {"base_model": ""}]
    path = write_job(tmp_path, mixed, base_models={"big": "other"})
    rows = prepare(load_job(path)).rows
    assert [one.key for one in rows] == [
        alone["base"][0].key,
        alone["other"][1].key,
        alone["base"][2].key,
    ]
    assert [one.width for one in rows] == [128, 256, 128]
    assert len({one.base_model_digest for one in rows}) == 2


def test_two_names_for_one_base_model_are_one(tmp_path: Path):
    values = [row(), row(base_model="same")]
    prepared = prepare(load_job(write_job(tmp_path, values, base_models={"same": "base"})))
    assert len({one.key for one in prepared.rows}) == 1
    (model,) = prepared.models_by_digest.values()
    assert model.label == str(tmp_path / "base")


def test_further_base_models_that_cannot_be_used_are_told_beside_other_problems(tmp_path: Path):
    named = {"gone": "nowhere", "hub": "owner/name@abc"}
    path = write_job(tmp_path, [row(seed=-1, base_model="gone")], base_models=named)

    def snapshot(name: str) -> str:
        raise BaseModelProblem(f"{name} is neither on this machine nor can it be fetched")

    with pytest.raises(InputError) as caught:
        prepare(load_job(path), place="job.yaml", snapshot=snapshot)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["base_models.gone", "base_models.hub", "seed"]


def test_problems_of_base_model_catalog_and_rows_come_together(tmp_path):
    path = write_job(tmp_path, [row(seed=-1), row(loras=["nobody"])], base_model="nowhere")
    catalog = tmp_path / "loras/loras.yaml"
    catalog.write_text(catalog.read_text() + "- {name: bad}\n")
    with pytest.raises(InputError) as caught:
        prepare(load_job(path), place="job.yaml")
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["base_model", "uri", "seed", "loras"]


def test_a_hub_model_is_brought_here_at_its_revision(tmp_path):
    path = write_job(tmp_path, [row()], base_model="owner/name@abc")
    asked: list[str] = []

    def snapshot(name: str) -> str:
        asked.append(name)
        return str(tmp_path / "base")

    prepared = prepare(load_job(path), snapshot=snapshot)
    assert prepared.models[""].place == str(tmp_path / "base")
    assert asked == ["owner/name@abc"]


def test_a_dino_model_may_be_the_hubs(tmp_path):
    scoring = {"model": "owner/dino@abc", "references": 2}
    job = load_job(write_job(tmp_path, [row()], scoring=scoring))
    assert job.scoring.model == "owner/dino@abc"
    folder = str(write_scorer(tmp_path / "dino"))
    prepared = prepare(job, snapshot=lambda _name: folder)
    assert prepared.scoring.model_dir == folder
    assert "owner/dino@abc" in prepared.scoring.statement

    def no_snapshot(name: str) -> str:
        raise BaseModelProblem(f"{name} is neither on this machine nor can it be fetched")

    with pytest.raises(InputError, match=r"scoring\.model: owner/dino@abc is neither"):
        prepare(job, snapshot=no_snapshot)


def test_a_hub_model_that_cannot_be_fetched_is_told(tmp_path):
    path = write_job(tmp_path, [row()], base_model="owner/name@abc")

    def snapshot(name: str) -> str:
        raise BaseModelProblem(f"{name} is neither on this machine nor can it be fetched")

    with pytest.raises(InputError, match="base_model: owner/name@abc is neither"):
        prepare(load_job(path), snapshot=snapshot)


def test_without_a_catalog_rows_can_name_no_lora(tmp_path: Path):
    path = write_job(tmp_path, [row(loras=[], method="base")], loras=None)
    assert len(prepare(load_job(path)).rows) == 1
    path = write_job(tmp_path, [row()], loras=None)
    with pytest.raises(InputError, match="no LoRA 'cat' in the catalog; none are known"):
        prepare(load_job(path))


def test_settings_are_checked_against_the_preset_that_the_job_will_run_with():
    assert job(sampler={"num_steps": 20}).sampler_config().num_steps == 20
    few = {"sampler": {"num_steps": 20}, "base_model": "sd15"}
    assert "guide_until_step (25) must be" in problems_of(MINIMAL | few)["sampler"].problem


def test_fewer_actors_at_most_than_at_least_are_refused():
    values = {"manifest": "m", "output": "o", "resources": {"actors": 4, "max_actors": 2}}
    with pytest.raises(InputError) as refused:
        parse_job(values, place="/jobs/job.yaml")
    (problem,) = refused.value.problems
    assert problem.field == "resources.max_actors"
    assert "at least actors (4), got 2" in problem.problem


@pytest.mark.parametrize("name", ["owner/name@main", "o-1/sd_v1.5@refs/pr/3", "a/b@0f3c.x-y"])
def test_names_of_the_hub_are_known_as_such(name):
    assert is_hub_name(name)
