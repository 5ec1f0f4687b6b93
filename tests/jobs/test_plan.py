"""``clora plan``: what a run would make, told before anything is started."""

from pathlib import Path

import pytest
from input_kit import row, write_base_model, write_job

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.cost import first_phase_evaluations, unet_evaluations
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


def test_a_first_phase_that_rows_share_is_taken_off_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lighter = [{"lora": "cat", "weight": 0.5}, "dog"]
    rows = [row(), row(loras=lighter), row(seed=8)]
    assert plan(write_job(tmp_path, [one | {"method": "freefuse"} for one in rows])) == 0
    out = capsys.readouterr().out
    phase = first_phase_evaluations("freefuse", 2, SamplerConfig())
    total = 3 * unet_evaluations("freefuse", 2, SamplerConfig()) - phase
    assert f"UNet evaluations  {total:,}\n" in out
    assert f"\n  first phase     shared by 2 rows: {phase:,} evaluations fewer\n" in out


def test_nothing_is_said_of_first_phases_where_none_is_shared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [row(method="freefuse"), row(method="freefuse", seed=8), row(seed=9)]
    assert plan(write_job(tmp_path, rows)) == 0
    assert "first phase" not in capsys.readouterr().out
