"""The product's main job, on a laptop and through Ray's job API, with one job file."""

import secrets
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from e2e.head_node import HeadNode, packages
from e2e.kit import RUN_TIMEOUT_S, Run, committed, manifest, write_job
from PIL import Image

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.cost import unet_evaluations

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * RUN_TIMEOUT_S)]

REFERENCES = {"references": 2}
NOT_READY = ("No available agent", "Failed to connect", "Connection refused")
MAX_GREY_LEVELS_APART = 2
"""Of any pixel, between the laptop's image and the cluster's: the same sums in another order."""


def rows() -> list[dict[str, object]]:
    """Six rows: a composition by two methods with three seeds, and a column of the user's own."""
    return [
        {**row, "row_id": f"{row['row_id']}-{method}", "method": method, "shelf": "A"}
        for method in ("clora", "merge")
        for row in manifest(3)
    ]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, clora: Run) -> Path:
    """The output of the job on this machine alone."""
    folder = tmp_path_factory.mktemp("laptop")
    job = write_job(folder, rows(), scoring=REFERENCES)
    done = clora("compose", job)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 made, 0 failed, 0 skipped"
    assert "references 10/10" in done.stderr
    assert "images 6/6" in done.stderr
    return folder / "out"


def test_the_output_is_a_data_set_with_all_that_was_asked_for(laptop: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(laptop), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == len(set(loaded["key"])) == 6
    assert {row["row_id"] for row in rows()} == set(loaded["row_id"])
    for row in loaded:
        assert isinstance(row["image"], Image.Image)
        assert row["dino_min"] <= row["dino_avg"] <= row["dino_max"]
        assert -2 < row["dino_apart"] < 1
        assert len(row["lora_scores"]) == len(row["loras"]) == 2
        assert row["seconds"] > 0
        assert row["unet_evaluations"] > 0
        assert row["carried_json"] == '{"shelf":"A"}'
        assert row["base_model_digest"]
        assert "torch" in row["versions_json"]
        assert (laptop / "images" / row["key"][:2] / f"{row['key']}.png").is_file()
    clora_rows = [row for row in loaded if row["method"] == "clora"]
    assert all(len(row["mask_coverage"]) == 2 for row in clora_rows)
    assert all(row["loss_first"] is not None for row in clora_rows)


def test_the_cost_formula_counts_what_the_sampler_did(laptop: Path):
    for row in committed(laptop).to_pylist():
        config = SamplerConfig.model_validate_json(row["sampler_json"])
        assert row["unet_evaluations"] == unet_evaluations(row["method"], 2, config)


def test_plan_and_status_see_what_is_made(laptop: Path, clora: Run):
    planned = clora("plan", laptop.parent / "job.yaml")
    assert "already made    6" in planned.stdout
    status = clora("status", laptop)
    assert status.returncode == 0
    assert status.stdout.startswith("6 of 6 rows made, 0 failed, 0 not made yet\n")


def test_a_second_run_makes_nothing_and_says_so(laptop: Path, clora: Run):
    start = time.monotonic()
    done = clora("compose", laptop.parent / "job.yaml")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "0 made, 0 failed, 6 skipped (already made)"
    assert time.monotonic() - start < 20, "a run with nothing to do should not start Ray"


def test_what_is_left_for_people_is_there(laptop: Path):
    assert Image.open(laptop / "contact_sheet.png").width > 500
    assert "configs:" in (laptop / "README.md").read_text()
    assert "clora_rows_total" in (laptop / "metrics.prom").read_text()
    assert len(list((laptop / "runs").iterdir())) == 1


def test_the_same_job_file_through_ray_job_submit_gives_the_same_images(
    laptop: Path, head: HeadNode, environment: dict[str, str], tmp_path: Path
):
    job = write_job(tmp_path, rows(), scoring=REFERENCES)
    code = packages(tmp_path / "code")
    entrypoint = [sys.executable, "-m", "jobs", "compose", str(job)]
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
    command += ["--address", head.dashboard, "--working-dir", ".", "--submission-id"]
    deadline = time.monotonic() + 90
    while True:
        submission = [*command, f"e2e-{secrets.token_hex(4)}", "--", *entrypoint]
        done = subprocess.run(submission, cwd=code, env=environment, capture_output=True, text=True)
        # The head refuses jobs until it and its agent are up.
        is_early = any(sign in done.stdout + done.stderr for sign in NOT_READY)
        if not is_early or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 made, 0 failed, 0 skipped" in done.stdout

    here, there = _by_key(committed(laptop)), _by_key(committed(tmp_path / "out"))
    assert here.keys() == there.keys()
    for key, row in here.items():
        assert there[key]["row_id"] == row["row_id"]
        difference = _pixels(laptop, key) - _pixels(tmp_path / "out", key)
        assert np.abs(difference).max() <= MAX_GREY_LEVELS_APART
        assert there[key]["dino_min"] == pytest.approx(row["dino_min"], abs=1e-3)


def _by_key(table: pa.Table) -> dict[str, dict[str, object]]:
    return {row["key"]: row for row in table.drop_columns(["image"]).to_pylist()}


def _pixels(output: Path, key: str) -> np.ndarray:
    return np.asarray(Image.open(output / "images" / key[:2] / f"{key}.png"), np.int16)
