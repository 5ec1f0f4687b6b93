"""``clora validate`` says what a run would refuse: sizes of maps, base models, scorers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from input_kit import row, write_job

from emoji_world import dino_dir
from jobs.commands.validate import validate

BLOCKS = {
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
"""With a sample_size of 32 these give maps of 32, 16 and 8."""


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Validate rows on a base model with these blocks; return exit code and standard error."""

    def run(rows: list[dict[str, Any]], **settings: Any) -> tuple[int, str]:
        job = write_job(tmp_path, rows, **settings)
        path = tmp_path / "base/unet/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | BLOCKS | {"sample_size": 32}))
        return validate(job), capsys.readouterr().err

    return run


def test_a_size_that_maps_do_not_fit_is_a_problem_of_its_row(said):
    rows = [
        row(row_id="good", width=272),
        row(row_id="wide", width=264),
        row(row_id="high", height=264),
    ]
    code, err = said(rows)
    assert code == 2
    assert "2 problem(s)" in err
    rule = "both sides must be multiples of 16 for this base model"
    assert f"width: size 264x256 px: {rule}" in err
    assert f"height: size 256x264 px: {rule}" in err


def test_another_map_size_allows_other_sizes(said):
    rows = [row(width=264, sampler={"map_size": 32}), row(width=264, sampler={"map_size": 8})]
    code, err = said(rows)
    assert code == 2
    assert "1 problem(s)" in err
    assert "line 2" in err
    assert "both sides must be multiples of 32" in err


@pytest.mark.parametrize("of_job", [True, False])
def test_a_map_size_that_the_model_has_not_is_a_problem(said, of_job: bool):
    setting = {"map_size": 24}
    code, err = said([row(sampler=None if of_job else setting)], sampler=setting if of_job else {})
    assert code == 2
    assert (
        "sampler.map_size: no cross-attention with maps of 24x24; this model has [8, 16, 32]; set "
        "map_size to one of them or leave it out" in err
    )


def test_a_scorer_that_lacks_files_is_a_problem(said, tmp_path):
    shutil.copytree(dino_dir(), tmp_path / "dino")
    (tmp_path / "dino/preprocessor_config.json").unlink()
    (tmp_path / "dino/model.safetensors").unlink()
    code, err = said([row()], scoring={"model": "dino"})
    assert code == 2
    assert "scoring.model: " in err
    assert f"{tmp_path / 'dino'} has no preprocessor_config.json" in err
    assert f"{tmp_path / 'dino'} has no weights that are loaded" in err
    assert "name a DINO model, or set references to 0" in err


def test_a_hub_name_without_a_revision_is_told_what_to_write(said):
    code, err = said([row()], base_model="someone/a-model", scoring={"model": "someone/dino"})
    assert code == 2
    assert "write someone/a-model@revision, with a commit as its revision" in err
    assert "write someone/dino@revision, with a commit as its revision" in err


def test_a_misspelt_folder_is_not_taken_for_a_hub_name(said):
    code, err = said([row()], base_model="bases")
    assert code == 2
    assert "bases is not a folder; name one in diffusers format" in err
    assert "write " not in err
