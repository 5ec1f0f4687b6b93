"""``clora plan``: what a run would make, told before anything is started."""

from pathlib import Path

import pytest
from input_kit import row, write_base_model, write_job

from jobs.commands.plan import plan


def test_rows_of_several_base_models_are_counted_by_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_base_model(tmp_path / "other", sample_size=32)
    rows = [row(seed=seed, base_model="big" if seed % 3 else None) for seed in range(6)]
    path = write_job(tmp_path, rows, base_models={"big": "other"}, resources={"rows_per_unit": 4})
    assert plan(path) == 0
    out = capsys.readouterr().out
    assert "to make           6 in 2 units of at most 4" in out
    assert f"  4               with big = {tmp_path / 'other'}" in out
    assert f"  2               with {tmp_path / 'base'}" in out


def test_with_one_base_model_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert plan(write_job(tmp_path, [row()])) == 0
    assert "with" not in capsys.readouterr().out.partition("UNet evaluations")[0]
