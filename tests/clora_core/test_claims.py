"""What concepts claim of the image, against loops over positions and against scipy."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.mask_loops import (
    loop_balanced,
    loop_blurred,
    loop_claims,
    loop_filled,
    loop_shares,
    loop_similarity,
)
from scipy.ndimage import binary_fill_holes, gaussian_filter

from clora_core.diffusion.attention import MapLayers
from clora_core.diffusion.features import similarity_layer
from clora_core.recipe.methods.gate import GateRecipe
from clora_core.sampling.balanced import balanced_argmax
from clora_core.sampling.claims import _blurred, claims, filled, shares, similarity

SIZE = (4, 6)
"""Height and width of the maps."""

TOKENS = torch.tensor([[[2, -1], [5, 3], [1, -1]], [[4, 1], [2, -1], [3, 5]]])
"""Of two rows with three concepts of one or two words."""


def random_maps(seed, num_rows=2, num_concepts=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_concepts, SIZE[0] * SIZE[1], 7)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).softmax(dim=-1)


def random_features(seed, num_rows=2):
    """As large as those of real models, so that the softmax after them is not flat."""
    generator = torch.Generator().manual_seed(100 + seed)
    shape = (num_rows, SIZE[0] * SIZE[1], 9)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 20


def words_of(maps, tokens):
    """One row's words as grids."""
    return [
        [maps[concept, :, token].reshape(SIZE).tolist() for token in own.tolist() if token >= 0]
        for concept, own in enumerate(tokens)
    ]


@pytest.mark.parametrize(
    ("source", "kind"),
    product(["own", "base", "self"], ["threshold", "argmax", "soft", "balanced"]),
)
@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_claims_are_those_of_the_loops(source, kind, smoothing):
    maps, features = random_maps(3), random_features(3)
    fill_holes = kind == "threshold"
    recipe = GateRecipe(source=source, kind=kind, smoothing=smoothing, fill_holes=fill_holes)
    found = claims(maps, TOKENS, features, recipe, threshold=0.4, map_shape=SIZE)
    for row in range(2):
        expected = loop_claims(
            words_of(maps[row], TOKENS[row]),
            features[row].tolist(),
            source=source,
            kind=kind,
            threshold=0.4,
            smoothing=smoothing,
            fill_holes=fill_holes,
        )
        assert torch.allclose(found[row], torch.tensor(expected, dtype=torch.float64), atol=1e-12)
        assert 0 < found[row].mean() < 1
    alone = claims(maps[:1], TOKENS[:1], features[:1], recipe, threshold=0.4, map_shape=SIZE)
    assert torch.allclose(alone, found[:1], atol=1e-12)


@pytest.mark.parametrize("kind", ["threshold", "argmax", "soft"])
def test_nobody_claims_what_no_map_shows(kind):
    maps = torch.zeros_like(random_maps(0))
    recipe = GateRecipe(source="own", kind=kind)
    assert not claims(maps, TOKENS, None, recipe, threshold=0.3, map_shape=SIZE).any()


def test_features_of_half_precision_are_compared_in_that_of_the_maps():
    maps, features = random_maps(1).float(), random_features(1)
    words = torch.stack([maps[:, 0, :, 1:2], maps[:, 1, :, 2:3]], dim=1)
    tokens = torch.ones(2, 2, 1, dtype=torch.long)
    rounded = features.bfloat16()
    found = similarity(words, tokens, rounded)
    assert found.dtype == torch.float32
    assert torch.equal(found, similarity(words, tokens, rounded.float()))


@pytest.mark.parametrize("seed", range(3))
def test_likeness_is_that_of_the_loop(seed):
    maps, features = random_maps(seed), random_features(seed)
    words = torch.stack([maps[:, 0, :, :2], maps[:, 1, :, 2:4]], dim=1)
    tokens = torch.tensor([[[0, 1], [0, 1]]] * 2)
    found = similarity(words, tokens, features)
    for row in range(2):
        grids = [
            [words[row, concept, :, slot].reshape(SIZE).tolist() for slot in range(2)]
            for concept in range(2)
        ]
        expected = torch.tensor(loop_similarity(grids, features[row].tolist()))
        assert torch.allclose(found[row].reshape(2, *SIZE), expected.double(), rtol=1e-6)


# ------------------------------------------------------------------------------------------- blur


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.5])
def test_the_blur_is_scipys_with_the_border_repeated(deviation):
    words = random_maps(0).unflatten(2, SIZE)  # more positions beyond the border than inside
    found = _blurred(words, deviation)
    radius = int(np.ceil(3 * deviation))
    for row, concept, word in product(range(2), range(3), range(7)):
        image = words[row, concept, :, :, word].numpy()
        expected = gaussian_filter(image, deviation, mode="nearest", radius=radius)
        assert np.allclose(found[row, concept, :, :, word], expected, atol=1e-14)
    by_hand = loop_blurred(words[0, 0, :, :, 0].tolist(), deviation)
    assert np.allclose(found[0, 0, :, :, 0], by_hand, atol=1e-14)


# ------------------------------------------------------------------------------------------ holes


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (1, 7), (5, 5), (9, 12)]))
def test_holes_are_scipys_and_the_floods(seed, size):
    generator = np.random.default_rng(seed)
    masks = torch.from_numpy(generator.random((2, 2, *size)) < 0.7)
    found = filled(masks)
    for row, concept in product(range(2), range(2)):
        mask = masks[row, concept]
        assert found[row, concept].tolist() == binary_fill_holes(mask.numpy()).tolist()
        assert found[row, concept].double().tolist() == loop_filled(mask.tolist())


def test_a_hole_open_at_a_corner_alone_is_one():
    ring = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)[None, None]
    assert filled(ring).int()[0, 0].tolist() == [[0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]]


# --------------------------------------------------------------------------------------- balanced


def assert_balanced_like_the_loop(scores):
    found = balanced_argmax(scores)
    for row, grids in enumerate(scores.tolist()):
        owners = torch.tensor(loop_balanced(grids))
        assert torch.equal(found[row].argmax(dim=0), owners)
    assert torch.equal(found.sum(dim=1), torch.ones_like(found[:, 0]))
    return found


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_concepts=st.integers(1, 4),
    size=st.sampled_from([(1, 1), (1, 5), (4, 6), (7, 3)]),
    spread=st.sampled_from([1e-6, 1e-3, 1.0]),
)
def test_balanced_assignment_is_the_loops(seed, num_concepts, size, spread):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand((2, num_concepts, *size), generator=generator, dtype=torch.float64)
    assert_balanced_like_the_loop(scores * spread)


def test_a_strong_and_a_weak_concept_get_nearly_equal_areas():
    """The strong one wins everywhere before the bias, which is what the rounds are for."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand((1, 2, 8, 8), generator=generator, dtype=torch.float64) * 1e-4
    scores[:, 0] += 4e-5
    before = (scores[:, 0] > scores[:, 1]).double().mean()
    found = assert_balanced_like_the_loop(scores)
    after = found[:, 0].mean()
    assert abs(after - 0.5) < abs(before - 0.5) / 2


# ----------------------------------------------------------------------------------------- shares


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_concepts=st.integers(1, 4), binary=st.booleans())
def test_shares_add_up_to_one_and_are_the_loops(seed, num_concepts, binary):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, num_concepts, 3, 5)
    claimed = torch.rand(shape, generator=generator, dtype=torch.float64)
    claimed = claimed.round() if binary else claimed
    regions = (torch.rand(shape, generator=generator) < 0.7).double()
    replaced = torch.rand(shape[:2], generator=generator) < 0.3
    found = shares(claimed, regions, replaced)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 3, 5, dtype=torch.float64), atol=1e-15)
    assert (found >= 0).all()
    assert not found[:, 1:][regions == 0].any()
    for row in range(2):
        given_ = [values[row].tolist() for values in (claimed, regions, replaced)]
        expected = torch.tensor(loop_shares(*given_), dtype=torch.float64)
        assert torch.allclose(found[row], expected, atol=1e-15)


# ----------------------------------------------------------------------------------- the features


def test_features_come_from_the_published_block_of_sdxl():
    blocks = [
        *(f"down_blocks.2.attentions.1.transformer_blocks.{n}.attn2" for n in range(10)),
        *(f"mid_block.attentions.0.transformer_blocks.{n}.attn2" for n in range(10)),
        *(f"up_blocks.0.attentions.0.transformer_blocks.{n}.attn2" for n in range(10)),
        *(f"up_blocks.0.attentions.1.transformer_blocks.{n}.attn2" for n in range(10)),
    ]
    published = "up_blocks.0.attentions.0.transformer_blocks.3.attn2"
    assert similarity_layer(MapLayers(tuple(blocks), 4)) == published


def test_models_with_fewer_blocks_give_the_last_of_the_same_attention():
    name = "{}.transformer_blocks.0.attn2".format
    stages = ("down_blocks.2.attentions.0", "up_blocks.1.attentions.0", "up_blocks.1.attentions.1")
    layers = MapLayers(tuple(name(stage) for stage in stages), 4)
    assert similarity_layer(layers) == name("up_blocks.1.attentions.0")
    assert similarity_layer(MapLayers((name("mid_block"),), 4)) == name("mid_block")
