"""A base model's headers tell the layers that it has once it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from oracles.fixtures import tiny_sd_dir, tiny_sdxl_dir  # noqa: F401
from safetensors.numpy import load_file, save_file
from torch import nn

from clora_core.diffusion.model import load_base_model
from emoji_world import base_model_dir
from manifests.weights.model_layers import UnknownLayersError, model_layers


@pytest.fixture(params=["embedded", "tiny_sd_dir", "tiny_sdxl_dir"])
def folder(request: pytest.FixtureRequest) -> Path:
    return (
        base_model_dir() if request.param == "embedded" else request.getfixturevalue(request.param)
    )


def test_the_layers_are_those_of_the_loaded_model(folder: Path):
    loaded = {
        component: {
            _spelled(name): tuple(layer.weight.shape)
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm)
        }
        for component, module in load_base_model(folder).components.items()
    }
    told = {
        component: {_spelled(name): shape for name, shape in layers.items()}
        for component, layers in model_layers(folder).shapes.items()
    }
    assert told == loaded


def _spelled(layer: str) -> str:
    """Return the name without the level that transformers has had and lost."""
    return layer.removeprefix("text_model.")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_model_dir(), tmp_path / "base"))


def test_weights_in_pieces_are_read_together_or_not_at_all(copy: Path):
    whole = copy / "unet/diffusion_pytorch_model.safetensors"
    expected = model_layers(copy).shapes
    tensors = load_file(whole)
    places: dict[str, str] = {}
    for number, start in enumerate((0, 1), start=1):
        part = dict(list(tensors.items())[start::2])
        name = f"{whole.stem}-0000{number}-of-00002.safetensors"
        save_file(part, whole.with_name(name))
        places |= dict.fromkeys(part, name)
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps({"weight_map": places}))
    whole.unlink()
    assert model_layers(copy).shapes["unet"] == expected["unet"]
    whole.with_name(f"{whole.stem}-00002-of-00002.safetensors").unlink()
    with pytest.raises(UnknownLayersError, match="unet lacks 1 of the 2 pieces of its weights"):
        model_layers(copy)


def test_weights_that_are_pickles_or_damaged_are_not_known(copy: Path):
    weights = copy / "text_encoder/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(UnknownLayersError, match="is truncated"):
        model_layers(copy)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UnknownLayersError, match=r"pytorch_model\.bin is no safetensors file"):
        model_layers(copy)


def test_a_component_that_the_pipeline_leaves_out_is_none(copy: Path):
    index = json.loads((copy / "model_index.json").read_text())
    index["text_encoder"] = [None, None]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert model_layers(copy).shapes.keys() == {"unet"}
    for text in ("[]", "{}", "{", "[" * 100_000, '{"unet": [null, null]}'):
        (copy / "model_index.json").write_text(text)
        with pytest.raises(UnknownLayersError, match=r"model_index\.json"):
            model_layers(copy)
