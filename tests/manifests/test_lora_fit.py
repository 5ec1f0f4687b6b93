"""What is said of a LoRA file before a run is what the run says, for every file of the corpus."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_loras import bad_files
from good_loras import GOOD_FILES, GoodFile, tensors, write_good
from safetensors.torch import save_file
from torch import Tensor, nn

from clora_core.diffusion.model import load_base_model
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from emoji_world import base_model_dir
from manifests.loras.catalog import LoraEntry
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.weights.model_layers import model_layers

Tensors = dict[str, Tensor]
FIT = LoraFit(layers=model_layers(base_model_dir()))


@pytest.fixture(scope="module")
def components() -> Mapping[str, nn.Module]:
    return load_base_model(base_model_dir()).components


def verdict(path: Path) -> str | None:
    """Return what is said beforehand."""
    entry = LoraEntry(name="x", uri=str(path), subject="cat")
    return LoraFiles().state(entry, FIT).problem


def oracle(path: Path, components: Mapping[str, nn.Module]) -> str | None:
    """Return what the run says."""
    try:
        read_lora(path, lora_targets(components))
    except LoraFileError as error:
        return str(error)
    return None


@pytest.mark.parametrize("file", GOOD_FILES, ids=str)
def test_a_good_file_passes_both(components, tmp_path: Path, file: GoodFile):
    path = write_good(tmp_path, file, components)
    assert verdict(path) is None
    assert oracle(path, components) is None


def test_a_bad_file_passes_neither(components, tmp_path: Path):
    path = tmp_path / "bad.safetensors"
    for file in bad_files():
        path.write_bytes(file.content)
        assert verdict(path) is not None, file.name
        assert oracle(path, components) is not None, file.name


def renamed(found: Tensors, source: random.Random) -> Tensors:
    """Give one layer a name that the model has not."""
    chosen = source.choice(sorted(found)).partition(".lora")[0]
    return {name.replace(chosen, f"{chosen}x", 1): tensor for name, tensor in found.items()}


def half_renamed(found: Tensors, _: random.Random) -> Tensors:
    """Give half of the layers names of another model."""
    return {name.replace("up_blocks", "up_blocks_9"): tensor for name, tensor in found.items()}


def reshaped(found: Tensors, source: random.Random) -> Tensors:
    """Give one factor another width."""
    name = source.choice([name for name, tensor in found.items() if tensor.ndim > 1])
    return found | {name: found[name].repeat(1, 2, *(1,) * (found[name].ndim - 2))}


def widened(found: Tensors, source: random.Random) -> Tensors:
    """Give one layer a kernel of five by five."""
    name = source.choice([name for name in found if name.endswith(("down.weight", "A.weight"))])
    kernel = found[name].reshape(*found[name].shape[:2], -1)[:, :, :1, None].repeat(1, 1, 5, 5)
    return found | {name: kernel.contiguous()}


def halved(found: Tensors, source: random.Random) -> Tensors:
    """Leave one factor out."""
    gone = source.choice([name for name, tensor in found.items() if tensor.ndim > 1])
    return {name: tensor for name, tensor in found.items() if name != gone}


def more(found: Tensors, _: random.Random) -> Tensors:
    """Add what is no part of a LoRA."""
    return found | {"mystery": torch.ones(2)}


def spoilt(found: Tensors, source: random.Random) -> Tensors:
    """Make one value infinite."""
    name = source.choice(sorted(found))
    return found | {name: torch.full_like(found[name], float("inf"))}


DAMAGES = (renamed, half_renamed, reshaped, widened, halved, more, spoilt)


def damaged_files(components: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensors]]:
    for file in GOOD_FILES:
        whole = tensors(file, components)
        for damage in DAMAGES:
            source = random.Random(f"{file}/{damage.__name__}")
            try:
                yield f"{damage.__name__} {file}", damage(whole, source)
            except IndexError:
                continue  # nothing in this file that could be damaged so


def test_a_good_file_that_is_damaged_is_told_the_same_by_both(components, tmp_path: Path):
    path = tmp_path / "damaged.safetensors"
    refused: dict[str, int] = {}
    for name, found in damaged_files(components):
        save_file({key: tensor.contiguous() for key, tensor in found.items()}, path)
        told, wanted = verdict(path), oracle(path, components)
        assert (told is None) == (wanted is None), (name, told, wanted)
        if told is not None:
            refused[name.split()[0]] = refused.get(name.split()[0], 0) + 1
            if "matches this base model" in told:
                assert told == wanted
    assert set(refused) == {damage.__name__ for damage in DAMAGES}


@pytest.mark.parametrize(
    "settings",
    [
        {"unet.lora_alpha": 2},
        {"unet.lora_alpha": 1e999},
        {"unet.lora_alpha": 10**400},
        {"unet.alpha_pattern": {"to_k": 1e999}},
        {"unet.alpha_pattern": {"(a+)+b": 2}},
        {"unet.alpha_pattern": {"[": 2}},
        {"unet.alpha_pattern": [1]},
        {"unet.use_rslora": True, "unet.lora_alpha": 4},
    ],
    ids=str,
)
def test_strengths_in_metadata_are_told_the_same_by_both(
    components, tmp_path: Path, settings: dict[str, Any]
):
    path = tmp_path / "told.safetensors"
    whole = tensors(GoodFile("peft", "attention", 4), components)
    save_file(whole, path, metadata={"lora_adapter_metadata": json.dumps(settings)})
    assert verdict(path) == oracle(path, components)


def test_an_alpha_of_doubles_that_is_not_finite_is_told_by_both(components, tmp_path: Path):
    path = tmp_path / "alpha.safetensors"
    whole = tensors(GoodFile("kohya", "attention", 4), components)
    name = next(name for name in whole if name.endswith(".alpha"))
    whole[name] = torch.tensor(float("nan"), dtype=torch.float64)
    save_file(whole, path)
    assert verdict(path) is not None
    assert oracle(path, components) is not None


def test_a_file_that_matches_in_part_is_told_with_both_counts_and_some_names(
    components, tmp_path: Path
):
    path = tmp_path / "part.safetensors"
    whole = tensors(GoodFile("kohya", "attention", 4), components)
    strange = {name.replace("lora_unet_up", "lora_unet_sideways"): t for name, t in whole.items()}
    save_file(strange, path)
    total = len(whole) // 3
    gone = len([name for name in strange if "sideways" in name]) // 3
    assert 3 < gone < total
    told = verdict(path)
    assert told is not None
    assert f"matches this base model in {total - gone} of {total} layers" in told
    assert "'lora_unet_sideways_blocks_" in told
    assert f" and {gone - 3} more. " in told
    assert "use a LoRA or a base model of the same family" in told
