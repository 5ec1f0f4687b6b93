"""What a base model folder says about itself without being loaded."""

import json

import pytest
from input_kit import write_base_model

from manifests.weights.base_model import inspect_base_model
from manifests.weights.model_config import BaseModelProblem


def test_size_and_width_come_from_the_configuration(tmp_path):
    facts = inspect_base_model(write_base_model(tmp_path))
    assert facts.default_size_px == 128
    assert facts.cross_attention_width == 96
    assert facts.folder == str(tmp_path)


def test_the_digest_changes_with_every_file_that_can_change_a_pixel(tmp_path):
    write_base_model(tmp_path)
    before = inspect_base_model(tmp_path).digest
    (tmp_path / "README.md").write_text("words")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.json").write_text("{}")
    assert inspect_base_model(tmp_path).digest == before
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")
    changed = inspect_base_model(tmp_path).digest
    assert changed != before
    (tmp_path / "unet/model.safetensors").write_bytes(b"other")
    assert inspect_base_model(tmp_path).digest not in (before, changed)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("model_index.json", None, "has no model_index.json; name a model folder in diffusers"),
        ("unet/config.json", "{", "unet/config.json cannot be read"),
        ("unet/config.json", "[]", "should hold a JSON object"),
        ("unet/config.json", json.dumps({}), "without a numeric sample_size"),
        ("vae/config.json", json.dumps({}), "block_out_channels"),
    ],
)
def test_a_folder_that_is_no_base_model_is_told(tmp_path, name, content, sentence):
    write_base_model(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BaseModelProblem, match=sentence):
        inspect_base_model(tmp_path)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(BaseModelProblem, match="is not a folder; name one in diffusers format"):
        inspect_base_model(tmp_path / "none")
