"""The committed weights are there, small, whole, and do what they say."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from clora_core.lora.load import lora_targets, read_lora
from emoji_world import (
    base_model_dir,
    dino_dir,
    example_manifest,
    lora_catalog,
    plain_lora_catalog,
    presence_file,
    weights_dir,
)
from emoji_world.bestiary import INSTANCES, NOUNS, STYLES
from emoji_world.catalog import catalog_entries, demo_rows, plain_entries
from emoji_world.presence import judge, load_presence
from emoji_world.training.files import save_base

MEGABYTE = 1_000_000


def test_all_weights_fit_their_budget():
    sizes = [path.stat().st_size for path in weights_dir().rglob("*") if path.is_file()]
    assert sum(sizes) <= 25 * MEGABYTE
    assert max(sizes) <= 16 * MEGABYTE


def test_all_weights_are_half_precision():
    for path in weights_dir().rglob("*.safetensors"):
        types = {tensor.dtype for tensor in load_file(path).values()}
        assert types == {torch.float16}, path


def configurations(folder: Path) -> list[Path]:
    words = ("vocab.json", "tokenizer.json")
    return [path for path in folder.rglob("*.json") if path.name not in words]


def test_no_configuration_names_a_folder_of_the_machine_that_made_it(tmp_path):
    pipeline: Any = StableDiffusionPipeline.from_pretrained(base_model_dir(), safety_checker=None)
    parts = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    save_base(tmp_path, **parts)
    for folder in (weights_dir(), tmp_path):
        assert len(configurations(folder)) > 5
        for path in configurations(folder):
            assert '": "/' not in path.read_text(), path


def test_the_catalog_and_the_manifest_are_those_the_code_writes():
    assert yaml.safe_load(lora_catalog().read_text())["loras"] == catalog_entries()
    assert pq.read_table(example_manifest()).to_pylist() == demo_rows()


def test_the_catalog_names_every_instance_and_style_and_their_files_exist():
    names = {entry["name"] for entry in catalog_entries()}
    assert names == {i.name for i in INSTANCES} | {s.name for s in STYLES}
    for entry in catalog_entries():
        assert (lora_catalog().parent / entry["uri"]).is_file()


def test_the_catalog_of_ordinary_loras_is_the_one_the_code_writes_and_its_files_exist():
    stored = yaml.safe_load(plain_lora_catalog().read_text())["loras"]
    assert stored == plain_entries()
    assert all((plain_lora_catalog().parent / entry["uri"]).is_file() for entry in stored)


def test_ordinary_loras_load_and_are_small_together():
    unet = UNet2DConditionModel.from_pretrained(base_model_dir() / "unet")
    files = [plain_lora_catalog().parent / entry["uri"] for entry in plain_entries()]
    assert sum(path.stat().st_size for path in files) <= 1.2 * MEGABYTE
    for path in files:
        factors = read_lora(path, lora_targets({"unet": unet})).components["unet"]
        assert factors
        assert all("attn" in layer for layer in factors)


def test_no_two_loras_are_the_same_file():
    entries = catalog_entries() + plain_entries()
    files = [lora_catalog().parent / entry["uri"] for entry in entries]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == len(files)


def test_every_demo_prompt_holds_the_noun_of_each_of_its_loras():
    subjects = {instance.name: instance.noun for instance in INSTANCES}
    for row in demo_rows():
        words = row["prompt"].split()
        assert all(subjects[name] in words for name in row["loras"])


def test_a_manifest_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(FileNotFoundError, match=r"no example manifest 'dmo'.*demo"):
        example_manifest("dmo")


def test_the_judge_names_its_labels_and_finds_nothing_in_an_empty_picture():
    net = load_presence(presence_file())
    assert set(net.labels) == set(NOUNS) | {instance.name for instance in INSTANCES}
    [verdict] = judge(net, [np.full((64, 64, 3), 128, np.uint8)])
    assert max(verdict.present.values()) < 0.5
    assert max(verdict.copies.values()) < 0.5


def test_a_file_that_is_no_judge_is_refused_by_name():
    with pytest.raises(ValueError, match="is not a presence network"):
        load_presence(lora_catalog().parent / f"{INSTANCES[0].name}.safetensors")


def test_the_base_model_draws_what_it_is_told_in_diffusers_own_pipeline():
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        base_model_dir(), safety_checker=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    [image] = pipeline(
        "a frog on the beach",
        num_inference_steps=12,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    [verdict] = judge(load_presence(presence_file()), [(image * 255).astype(np.uint8)])
    assert verdict.place == "beach"
    assert verdict.present["frog"] > 0.5


def test_the_scoring_model_loads_as_a_vision_transformer():
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(dino_dir(), add_pooling_layer=False)
    pixels = AutoImageProcessor.from_pretrained(dino_dir())(
        np.zeros((64, 64, 3), np.uint8), return_tensors="pt"
    )["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    assert model(pixels).last_hidden_state.shape == (1, 65, model.config.hidden_size)
