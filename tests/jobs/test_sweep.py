from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from input_kit import write_catalog

from clora_core.recipe.methods import METHODS
from emoji_world.measures.composed import VALIDATION_PAIRS
from jobs.commands.sweep import JOB_NAME, MANIFEST_NAME, sweep
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from manifests.grid.spec import load_sweep

EXAMPLES = Path(__file__).parents[2] / "examples"


def write(folder: Path, **values: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"output": "out", **values}))
    return path


def test_a_sweep_becomes_a_job_that_validates_and_writing_it_again_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(
        tmp_path,
        methods=["clora", "merge"],
        seeds=[1, 2],
        prompts=["{subjects} {background}"],
        backgrounds=["on the beach"],
        compositions=[["violet-cat", "husky-dog"]],
        sampler={"num_steps": 20},
        samplers=[{}, {"guidance_scale": 5.0}],
    )
    assert sweep(path) == 0
    assert "8 rows: 1 LoRA set(s), 1 prompt(s), 2 seed(s)" in capsys.readouterr().out
    out = tmp_path / "out"
    first = [(out / name).read_bytes() for name in (JOB_NAME, MANIFEST_NAME)]
    job = load_job(out / JOB_NAME)
    assert job.output == str(out)
    rows = prepare(job).rows
    assert len({row.key for row in rows}) == 8
    assert {row.prompt for row in rows} == {"a cat and a dog on the beach"}
    assert '"background":"on the beach"' in rows[0].carried_json
    assert sweep(path) == 0
    assert [(out / name).read_bytes() for name in (JOB_NAME, MANIFEST_NAME)] == first


def test_a_job_that_somebody_wrote_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(tmp_path, compositions=[["violet-cat", "husky-dog"]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOB_NAME).write_text("manifest: mine.csv\n")
    assert sweep(path) == 2
    assert "was not written by `clora sweep`" in capsys.readouterr().err
    assert (tmp_path / "out" / JOB_NAME).read_text() == "manifest: mine.csv\n"
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_problems_of_grid_settings_catalog_and_job_come_in_one_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(
        tmp_path,
        methods=["clorra"],
        compositions=[["violet-cat", "husky-dg"]],
        sampler={"num_stepz": 3},
        samplers=[{"guidance_scale": 0.0}],
        scoring={"refs": 3},
    )
    assert sweep(path) == 2
    told = capsys.readouterr().err
    for part in (
        "sampler.num_stepz: is not a known setting; did you mean 'num_steps'?",
        "samplers[0].guidance_scale",
        "scoring.refs: is not a known setting",
        "methods: 'clorra' is no method; did you mean 'clora'?",
        "no LoRA 'husky-dg' in the catalog; did you mean 'husky-dog'?",
    ):
        assert part in told
    assert not (tmp_path / "out").exists()


def test_paths_of_a_sweep_start_beside_it_and_need_no_weights(tmp_path: Path):
    write_catalog(tmp_path / "loras")
    path = write(
        tmp_path,
        base_model="models/none-here",
        loras="loras/loras.yaml",
        compositions=[["cat", "dog"]],
    )
    assert sweep(path) == 0
    job = load_job(tmp_path / "out" / JOB_NAME)
    assert job.base_model == str(tmp_path / "models/none-here")
    assert job.loras == str(tmp_path / "loras/loras.yaml")


def test_the_embedded_benchmark_is_large_enough():
    pairs, _ = load_sweep(EXAMPLES / "emoji_benchmark.yaml")
    assert len({frozenset(each.loras) for each in pairs.compositions}) >= 24
    assert len(pairs.seeds) >= 4
    assert len({prompt for each in pairs.compositions for prompt in each.prompts or ()}) >= 4
    triples, _ = load_sweep(EXAMPLES / "emoji_triples.yaml")
    assert len({frozenset(each.loras) for each in triples.compositions}) >= 12
    for name in ("emoji_triples", "emoji_plain_triples"):
        triples, _ = load_sweep(EXAMPLES / f"{name}.yaml")
        assert all(len(each.loras) == 3 for each in triples.compositions)
        assert (triples.width, triples.height) == (96, 64)


@pytest.mark.parametrize("name", ["emoji_benchmark", "emoji_triples", "emoji_ablations"])
def test_no_embedded_benchmark_shares_a_pair_with_what_fitted_settings(name):
    spec, _ = load_sweep(EXAMPLES / f"{name}.yaml")
    sets = [tuple(each.loras) for each in spec.compositions]
    fitted = {frozenset(pair) for pair in VALIDATION_PAIRS}
    used = {frozenset(pair) for each in sets for pair in combinations(each, 2)}
    assert not used & fitted


def test_the_paper_s_benchmark_is_its_seven_systems_11_prompts_10_seeds_and_50_references():
    spec, _ = load_sweep(EXAMPLES / "paper_benchmark.yaml")
    prompts = [prompt for each in spec.compositions for prompt in each.prompts or ()]
    assert len(prompts) == 11
    assert len(spec.seeds) == 10
    assert spec.scoring["references"] == 50
    fused = {"ziplora", "mix-of-show", "custom-diffusion"}
    assert set(spec.methods) == {"clora", "merge", "composite", "switch"} | fused
    assert set(spec.methods) <= set(METHODS)
