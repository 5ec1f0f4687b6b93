"""Masks and blending against pixel loops, and what must hold of any masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.loops import loop_blend, loop_masks

from clora_core.sampling.masks import (
    blend,
    clean,
    concept_masks,
    coverage_and_overlap,
    leakage,
    own_maps,
    with_background,
    within_regions,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_and_blend_of_four_pixels(dtype):
    maps = torch.zeros(1, 3, 4, 1, dtype=dtype)
    maps[0, 1, :, 0] = torch.tensor([0.1, 0.29, 0.31, 1.0], dtype=dtype)
    maps[0, 2, :, 0] = torch.tensor([1, 0.2, 0.5, 0.3], dtype=dtype)
    tokens = torch.tensor([[[-1], [0], [0]]])
    masks = concept_masks(maps, tokens, threshold=0.3)
    assert masks[0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]]
    predictions = torch.tensor([1.0, 10, 100], dtype=dtype)[None, :, None, None, None]
    blended = blend(predictions.expand(1, 3, 1, 1, 4), masks[:, :, None])
    assert blended.flatten().tolist() == [100.0, 1.0, 55.0, 10.0]


def test_exactly_the_threshold_is_outside():
    maps = torch.tensor([0.5, 1.0])[None, None, :, None].expand(1, 2, 2, 1)
    masks = concept_masks(maps, torch.tensor([[[-1], [0]]]), threshold=0.5)
    assert masks[0].tolist() == [[1, 0], [0, 1]]


def test_an_all_zero_map_claims_nothing():
    masks = concept_masks(torch.zeros(1, 2, 4, 1), torch.tensor([[[-1], [0]]]), threshold=0.3)
    assert masks[0].tolist() == [[1] * 4, [0] * 4]


def test_each_token_has_its_own_peak():
    maps = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.01]]])[None]
    both = concept_masks(maps, torch.tensor([[[-1, -1], [0, 1]]]), threshold=0.5)
    assert both[0, 1].tolist() == [1, 1]
    one = concept_masks(maps, torch.tensor([[[-1, -1], [0, -1]]]), threshold=0.5)
    assert one[0, 1].tolist() == [1, 0]


@st.composite
def map_batches(draw):
    """Random maps of some rows with some tokens a variant, padded where there are fewer."""
    num_rows, num_variants = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    num_tokens, slots = 6, 3
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    maps = torch.rand(num_rows, num_variants, height * width, num_tokens, generator=generator)
    tokens = torch.full((num_rows, num_variants, slots), -1)
    for row in range(num_rows):
        for variant in range(1, num_variants):
            own = draw(st.sets(st.integers(0, num_tokens - 1), min_size=1, max_size=slots))
            tokens[row, variant, : len(own)] = torch.tensor(sorted(own))
    return maps.double() ** 4, tokens, (height, width)


@settings(max_examples=50, deadline=None)
@given(map_batches(), st.floats(0, 1))
def test_masks_are_those_of_the_pixel_loop(case, threshold):
    maps, tokens, shape = case
    masks = concept_masks(maps, tokens, threshold=threshold)
    for row in range(len(maps)):
        words = [[t for t in slots if t >= 0] for slots in tokens[row].tolist()]
        looped = loop_masks(maps[row].unflatten(1, shape), words, threshold=threshold)
        assert torch.equal(masks[row].unflatten(1, shape).bool(), looped)


@settings(max_examples=50, deadline=None)
@given(map_batches(), st.integers(1, 3), st.booleans())
def test_the_blend_is_that_of_the_pixel_loop(case, enlargement, morphology):
    maps, tokens, (height, width) = case
    masks = concept_masks(maps, tokens, threshold=0.4).unflatten(2, (height, width))
    if morphology:
        masks = clean(masks)
    shape = (*masks.shape[:2], 2, height * enlargement, width * enlargement)
    predictions = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    blended = blend(predictions, masks)
    for row in range(len(maps)):
        looped = loop_blend(predictions[row], masks[row].bool())
        assert torch.allclose(blended[row], looped, rtol=1e-13, atol=1e-13)


@settings(max_examples=50, deadline=None)
@given(map_batches(), st.floats(0, 1), st.booleans())
def test_weights_partition_the_image(case, threshold, morphology):
    maps, tokens, shape = case
    masks = concept_masks(maps, tokens, threshold=threshold).unflatten(2, shape)
    if morphology:
        masks = clean(masks)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    # whatever all variants agree on comes out unchanged, so the weights sum to one
    same = torch.randn(shape).double().expand(*masks.shape[:2], 1, *shape)
    assert torch.allclose(blend(same, masks), same[:, 0], rtol=1e-14, atol=1e-14)
    # the background is where nobody is, and nowhere else
    assert torch.equal(masks[:, 0].bool(), ~masks[:, 1:].bool().any(dim=1))


@settings(max_examples=25, deadline=None)
@given(map_batches())
def test_no_row_sees_another(case):
    maps, tokens, shape = case
    together = clean(concept_masks(maps, tokens, threshold=0.3).unflatten(2, shape))
    for row in range(len(maps)):
        one = slice(row, row + 1)
        alone = clean(concept_masks(maps[one], tokens[one], threshold=0.3).unflatten(2, shape))
        assert torch.equal(alone, together[one])


def test_without_masks_the_blend_is_the_mean():
    predictions = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(blend(predictions, None), predictions.mean(dim=1))


# ------------------------------------------------------------------------------------ morphology


def _looped(mask, choose):
    """``choose`` (any or all) over each pixel's neighbours inside the map."""
    height, width = len(mask), len(mask[0])
    return [
        [
            choose(
                mask[v][u]
                for v in range(max(0, y - 1), min(height, y + 2))
                for u in range(max(0, x - 1), min(width, x + 2))
            )
            for x in range(width)
        ]
        for y in range(height)
    ]


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**49 - 1))
def test_cleaning_is_dilate_erode_open_close_by_loops(height, width, bits):
    mask = [[bool(bits >> (y * 7 + x) & 1) for x in range(width)] for y in range(height)]
    expected = mask
    for choose in (any, all, all, any, any, all):
        expected = _looped(expected, choose)
    given_masks = torch.tensor([[[[False] * width] * height, mask]]).double()
    cleaned = clean(given_masks)
    assert cleaned[0, 1].bool().tolist() == expected
    assert torch.equal(cleaned[0, 0], 1 - cleaned[0, 1])


# --------------------------------------------------------------------------------------- regions


def test_a_region_restricts_or_replaces_its_variants_mask():
    masks = torch.tensor([[[0, 0, 0, 1.0], [1, 1, 0, 0], [0, 1, 1, 0]]])[:, :, None]
    regions = torch.tensor([[[1.0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]])[:, :, None]
    replaced = torch.tensor([[False, False, True]])
    found = within_regions(masks, regions, replaced)
    assert found[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]


@settings(max_examples=30, deadline=None)
@given(map_batches())
def test_regions_of_everything_change_nothing(case):
    maps, tokens, shape = case
    masks = concept_masks(maps, tokens, threshold=0.3).unflatten(2, shape)
    nobody_replaced = torch.zeros(masks.shape[:2], dtype=torch.bool)
    assert torch.equal(within_regions(masks, torch.ones_like(masks), nobody_replaced), masks)


# ----------------------------------------------------------------------------------- diagnostics


def test_coverage_and_overlap_are_shares_of_the_map():
    masks = with_background(
        torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 0.0], [0, 1, 1, 0], [0, 0, 1, 0]]])[:, :, None]
    )
    coverage, overlap = coverage_and_overlap(masks)
    assert coverage.tolist() == [[0.75, 0.5, 0.25]]
    assert overlap.tolist() == [0.5]


def test_leakage_is_the_share_of_a_concept_s_attention_outside_its_mask():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [0.0, 0.0]]]])
    masks = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]]])
    assert leakage(maps, masks)[0].tolist() == pytest.approx([3 / 10, 0])
    assert torch.equal(leakage(maps * 7, masks), leakage(maps, masks))
    assert leakage(maps * 0, masks)[0].tolist() == [0, 0]


def test_own_maps_show_the_strongest_token_of_each_variant():
    maps = torch.tensor([[[0.9, 0.9, 0.9]], [[0.1, 0.5, 0.9]]])[None]
    assert own_maps(maps, torch.tensor([[[-1, -1], [0, 1]]]))[0].tolist() == [[0.0], [0.5]]
