"""CLIP text scores against transformers' own CLIP, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.tiny_tokenizer import write_tokenizer
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from clora_core.clip import ClipScorer

PROMPTS = ("a cat and a dog", "a bird", "a fox in the forest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP model with everything its folder needs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    write_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in PROMPTS]


def test_a_score_is_the_cosine_that_transformers_scales(folder: Path, images: list[np.ndarray]):
    model = CLIPModel.from_pretrained(folder)
    tokenizer, processor = (
        AutoTokenizer.from_pretrained(folder),
        CLIPImageProcessor.from_pretrained(folder),
    )
    expected = []
    for image, prompt in zip(images, PROMPTS, strict=True):
        with torch.no_grad():
            output = model(
                **tokenizer([prompt], return_tensors="pt"),
                **processor(images=[Image.fromarray(image)], return_tensors="pt"),
            )
        expected.append((output.logits_per_image / model.logit_scale.exp()).item())
    scores = ClipScorer.load(folder).scores(images, PROMPTS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores.round(6))) == len(PROMPTS)


def test_an_image_is_scored_with_its_own_prompt(folder: Path, images: list[np.ndarray]):
    scorer = ClipScorer.load(folder)
    together = scorer.scores(images, PROMPTS)
    turned = scorer.scores(images[::-1], PROMPTS[::-1])
    assert together == pytest.approx(turned[::-1], abs=1e-6)
    other = scorer.scores(images, PROMPTS[::-1])
    assert abs(other[0] - together[0]) > 1e-4


def test_a_prompt_that_is_too_long_is_cut_off(folder: Path, images: list[np.ndarray]):
    long = "a cat " * 200
    assert np.isfinite(ClipScorer.load(folder).scores(images[:1], [long])).all()


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(OSError, match=str(tmp_path)):
        ClipScorer.load(tmp_path)
