"""DINO scores: the centroid is the mean of cosines, and a folder of any small ViT loads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from clora_core.dino import DinoScorer, lora_scores, reference_centroid


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 9), st.integers(0, 999)
)
def test_scores_are_means_of_cosines(num_images, num_loras, num_references, width, seed):
    random = np.random.default_rng(seed)
    images = random.normal(size=(num_images, width)).astype(np.float32)
    references = random.normal(size=(num_loras, num_references, width)).astype(np.float32)
    centroids = np.stack([reference_centroid(unit(found)) for found in references])
    scores = lora_scores(unit(images), centroids)
    assert scores.shape == (num_images, num_loras)
    for i, image in enumerate(images):
        for k, found in enumerate(references):
            cosines = [
                float(image @ one) / float(np.linalg.norm(image) * np.linalg.norm(one))
                for one in found
            ]
            assert scores[i, k] == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)


def test_a_centroid_is_shorter_than_its_references():
    references = np.eye(2, dtype=np.float32)
    centroid = reference_centroid(references)
    assert np.linalg.norm(centroid) == pytest.approx(0.5**0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random ViT in transformers' format."""
    path = tmp_path_factory.mktemp("tiny-dino")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        initializer_range=0.3,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return DinoScorer.load(folder)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(1)
    sizes = [(32, 32), (64, 48), (40, 80)]
    return [random.integers(0, 256, size=(*size, 3), dtype=np.uint8) for size in sizes]


def test_features_are_unit_vectors_one_an_image(scorer, images):
    features = scorer.features(images)
    assert features.shape == (3, 16)
    assert features.dtype == np.float32
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(3), abs=1e-6)


def test_the_order_of_images_changes_nothing(scorer, images):
    features = scorer.features(images)
    backwards = scorer.features(images[::-1])[::-1]
    assert backwards == pytest.approx(features, abs=1e-6)
    alone = np.concatenate([scorer.features([image]) for image in images])
    assert alone == pytest.approx(features, abs=1e-6)


def test_an_image_is_most_like_itself(scorer, images):
    features = scorer.features(images)
    scores = lora_scores(features, np.stack([reference_centroid(f[None]) for f in features]))
    assert np.diag(scores) == pytest.approx(np.ones(3), abs=1e-6)
    assert (scores.argmax(axis=1) == np.arange(3)).all()


def test_features_are_those_of_the_class_token(folder, scorer, images):
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    processor = ViTImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        pixels = processor(images=images[0], return_tensors="pt")["pixel_values"]
        token = model(pixels).last_hidden_state[0, 0].numpy()
    assert scorer.features(images[:1])[0] == pytest.approx(unit(token[None])[0], abs=1e-5)
