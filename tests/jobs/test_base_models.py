"""One manifest on two base models: every image is the one that a job with its model alone makes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.kit import committed, manifest, other_world, write_job
from engine_kit import ON_ONE_CPU, Watcher, composed_rows
from PIL import Image

from jobs.commands.render import likeness
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from jobs.job.run_request import run_request
from pipelines.ledger.run_record import read_run_records
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage

MAX_GREY_LEVELS_APART = 2
"""Of any pixel, by the number of threads: the same sums in another order."""


def pixels(output: Path, row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(output / row["image"]["path"]))


def made_alone(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a job with one base model by key, made in this process as one unit."""
    job = load_job(path)
    request = run_request(job, prepare(job))
    engine = request.load_model_host(ON_ONE_CPU)
    engine.hold(request.base_model_digest)
    rows, _ = composed_rows(request.rows, engine.compose)
    return {row["key"]: row for row in rows}


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_rows_on_two_base_models_are_those_of_two_jobs(tmp_path: Path):
    other = str(other_world(tmp_path / "other"))
    rows = manifest(2, base_model=None)
    alone = made_alone(write_job(tmp_path / "first", rows)) | made_alone(
        write_job(tmp_path / "second", rows, base_model=other)
    )
    assert len(alone) == 4

    mixed = [
        {**row, "row_id": f"{row['row_id']} {name}", "base_model": name}
        for row in rows
        for name in (None, "other")
    ]
    job = load_job(
        write_job(tmp_path / "both", mixed, base_models={"other": other}, scoring={"references": 1})
    )
    assert compose_rows(run_request(job, prepare(job)), Watcher(), address=None).num_made == 4
    made = committed(tmp_path / "both/out").to_pylist()
    assert {row["key"] for row in made} == alone.keys()
    for row in made:
        mine = alone[row["key"]]
        assert row["base_model_digest"] == mine["base_model_digest"]
        assert row["sampler_json"] == mine["sampler_json"]
        image = pixels(tmp_path / "both/out", row)
        by_itself = np.frombuffer(mine["pixels"], np.uint8).reshape(image.shape)
        assert likeness(image, by_itself).largest <= MAX_GREY_LEVELS_APART
        assert row["dino_min"] is not None
    others = [row for row in made if row["row_id"].endswith("other")]
    for row in others:
        (twin,) = (one for one in made if one["seed"] == row["seed"] and one not in others)
        apart = likeness(*(pixels(tmp_path / "both/out", one) for one in (row, twin)))
        assert apart.largest > 10 * MAX_GREY_LEVELS_APART
    assert {row["carried_json"] for row in others} == {'{"base_model":"other"}'}

    # One actor made all of it: each model was loaded for references, and for rows the one that the
    # references did not end with.
    (record,) = read_run_records(LocalStorage(tmp_path / "both/out"))
    assert [phase["model_loads"] for phase in record["phases"].values()] == [2, 1]
    assert record["base_models"] == {"other": others[0]["base_model_digest"]}
