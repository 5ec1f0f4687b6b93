"""The tiny models are what they claim to be; else the tests that use them prove little."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from oracles.tiny_loras import TinyLoras, build_tiny_loras, read_weights
from oracles.tiny_models import build_tiny_sd
from oracles.tiny_rows import lora_use
from oracles.tiny_tokenizer import WORDS
from transformers import CLIPTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_sd_dir: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(tiny_sd_dir / "tokenizer")


@pytest.mark.parametrize("word", WORDS)
def test_every_listed_word_is_one_token(tokenizer, word):
    assert len(tokenizer.tokenize(word)) == 1


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("plushie", ["plu", "shie</w>"]),
        ("blackcat", ["black", "cat</w>"]),
        ("browndog", ["brown", "dog</w>"]),
    ],
)
def test_compound_words_are_two_pieces(tokenizer, word, pieces):
    assert tokenizer.tokenize(word) == pieces


def test_an_unlisted_word_falls_apart_and_comes_back(tokenizer):
    pieces = tokenizer("zebra é", add_special_tokens=False).input_ids
    assert len(pieces) > 2
    assert tokenizer.decode(pieces).replace(" ", "") == "zebraé"


def test_the_models_make_images_of_their_size(tiny_sd_dir, tiny_sdxl_dir):
    for pipeline in (
        StableDiffusionPipeline.from_pretrained(tiny_sd_dir, safety_checker=None),
        StableDiffusionXLPipeline.from_pretrained(tiny_sdxl_dir),
    ):
        pipeline.set_progress_bar_config(disable=True)
        image = pipeline("a cat", num_inference_steps=1, output_type="np").images[0]
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        assert image.shape == (side, side, 3)
        assert image.std() > 0.01


def test_the_same_seed_writes_the_same_bytes(tiny_sd_dir, tiny_loras, tmp_path):
    again = build_tiny_sd(tmp_path / "model")
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (again / weights).read_bytes() == (tiny_sd_dir / weights).read_bytes()
    loras = build_tiny_loras(again, tmp_path / "loras")
    for name, path in loras.by_name.items():
        assert path.read_bytes() == tiny_loras[name].read_bytes()
        assert lora_use(path).digest == lora_use(tiny_loras[name]).digest


def test_every_lora_file_is_random_and_complete(tiny_loras: TinyLoras):
    for path in tiny_loras.by_name.values():
        weights = read_weights(path)
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
        assert all(tensor.abs().sum() > 0 for tensor in weights.values())
