"""The contrastive loss against golden values, a loop and pytorch-metric-learning."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.golden_losses import ALTERNATING, GOLDEN, GOLDEN_GRADIENT, MIXED
from oracles.loops import loop_loss
from pytorch_metric_learning.losses import NTXentLoss

from clora_core.sampling.loss import PADDING, contrastive_loss, has_constant_map


def one_row(maps, labels, *, temperature=0.5, dtype=torch.float64):
    tensor = torch.as_tensor(maps, dtype=dtype)[None]
    return contrastive_loss(tensor, torch.tensor([labels]), temperature=temperature)[0]


@pytest.mark.parametrize(("maps", "labels", "expected"), GOLDEN)
def test_the_golden_values(maps, labels, expected):
    assert one_row(maps, labels).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("maps", "labels", "expected"), GOLDEN)
def test_the_golden_values_in_single_precision(maps, labels, expected):
    found = one_row(maps, labels, dtype=torch.float32).item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("other", [1.1772649009542124, 1.2809326246629273])
def test_the_first_golden_value_is_not_that_of_a_similar_loss(other):
    # without the minimum subtracted; SupCon with every positive in the denominator
    assert abs(one_row(*GOLDEN[0][:2]).item() - other) > 0.1


def test_the_golden_gradient():
    maps = torch.tensor([ALTERNATING], dtype=torch.float64, requires_grad=True)
    contrastive_loss(maps, torch.tensor([[0, 0, 0, 1, 1, 1]]), temperature=0.5).sum().backward()
    assert maps.grad[0, 0].tolist() == pytest.approx(GOLDEN_GRADIENT, abs=1e-6)


def test_the_gradient_is_the_losss_slope():
    maps = torch.tensor([MIXED], dtype=torch.float64, requires_grad=True)
    concepts = torch.tensor([[0, 0, 1, 1, 0, 1]])
    maps = (maps + 0.05 * torch.arange(4)).detach().requires_grad_()  # no ties at the minimum
    assert torch.autograd.gradcheck(
        lambda m: contrastive_loss(m, concepts, temperature=0.3), maps, raise_exception=True
    )


@st.composite
def labelled_maps(draw, max_rows=1):
    """Random maps of at least two concepts, one of which has two."""
    num_maps = draw(st.integers(3, 12))
    num_positions = draw(st.integers(3, 40))
    labels = draw(st.lists(st.integers(0, 3), min_size=num_maps, max_size=num_maps))
    labels[:3] = [0, 0, 1]
    labels = draw(st.permutations(labels))
    seed = draw(st.integers(0, 2**31))
    num_rows = draw(st.integers(1, max_rows))
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(num_rows, num_maps, num_positions, generator=generator, dtype=torch.float64)
    return maps**3, labels


@given(labelled_maps(), st.floats(0.1, 2))
def test_the_loss_is_that_of_the_definition_and_of_the_library(case, temperature):
    maps, labels = case
    found = one_row(maps[0], labels, temperature=temperature).item()
    looped = loop_loss(maps[0].tolist(), labels, temperature=temperature)
    assert found == pytest.approx(looped, rel=1e-10)
    shifted = maps[0] - maps[0].amin(dim=1, keepdim=True)
    library = NTXentLoss(temperature=temperature)(shifted, torch.tensor(labels)).item()
    assert found == pytest.approx(library, rel=1e-10)


@given(labelled_maps(), st.floats(0.01, 100), st.floats(-1, 1))
def test_scale_and_offset_of_a_map_do_not_count(case, scale, offset):
    maps, labels = case
    changed = maps[0].clone()
    changed[1] = changed[1] * scale + offset
    assert one_row(changed, labels).item() == pytest.approx(
        one_row(maps[0], labels).item(), rel=1e-9
    )


@given(labelled_maps(), st.randoms())
def test_the_order_of_maps_and_the_names_of_concepts_do_not_count(case, random):
    maps, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)
    renamed = [7 - labels[index] for index in order]
    found = one_row(maps[0][order], renamed).item()
    assert found == pytest.approx(one_row(maps[0], labels).item(), rel=1e-12)


@given(labelled_maps(max_rows=4), st.integers(1, 3))
def test_padding_changes_neither_loss_nor_gradient(case, num_padding):
    maps, labels = case
    junk = torch.full((len(maps), num_padding, maps.shape[2]), 0.5, dtype=torch.float64)
    junk[:, :, 0] = 9
    plain, padded = maps.clone().requires_grad_(), torch.cat([maps, junk], dim=1).requires_grad_()
    concepts = torch.tensor([labels] * len(maps))
    filler = torch.full((len(maps), num_padding), PADDING)
    alone = contrastive_loss(plain, concepts, temperature=0.5)
    beside = contrastive_loss(padded, torch.cat([concepts, filler], dim=1), temperature=0.5)
    assert torch.allclose(alone, beside, rtol=1e-13, atol=0)
    alone.sum().backward()
    beside.sum().backward()
    assert torch.allclose(plain.grad, padded.grad[:, : len(labels)], rtol=1e-9, atol=1e-13)
    assert not padded.grad[:, len(labels) :].any()


@settings(max_examples=30)
@given(labelled_maps(max_rows=4))
def test_no_row_sees_another(case):
    maps, labels = case
    concepts = torch.tensor([labels] * len(maps))
    leaf = maps.clone().requires_grad_()
    together = contrastive_loss(leaf, concepts, temperature=0.5)
    for index, loss in enumerate(together):
        assert loss.item() == pytest.approx(one_row(maps[index], labels).item(), rel=1e-13)
        [gradient] = torch.autograd.grad(loss, leaf, retain_graph=True)
        others = [row for row in range(len(maps)) if row != index]
        assert not gradient[others].any()


def test_constant_padding_gives_no_nan_in_the_gradient():
    maps = torch.tensor([[*MIXED[:3], [0.0] * 4]], requires_grad=True)
    concepts = torch.tensor([[0, 0, 1, PADDING]])
    contrastive_loss(maps, concepts, temperature=0.5).sum().backward()
    assert maps.grad.isfinite().all()


def test_rows_without_a_pair_are_refused_by_number():
    maps = torch.rand(3, 2, 4)
    concepts = torch.tensor([[0, 0], [0, 1], [0, PADDING]])
    with pytest.raises(ValueError, match=r"no concept has two maps in rows \[1, 2\]; pass"):
        contrastive_loss(maps, concepts, temperature=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_without_contrast_is_noticed(dtype):
    maps = torch.rand(3, 2, 16, generator=torch.Generator().manual_seed(0), dtype=dtype)
    maps[1, 1] = 1 / 77
    maps[2, 0] = 0
    concepts = torch.tensor([[0, 0], [0, 0], [0, 0]])
    assert has_constant_map(maps, concepts).tolist() == [False, True, True]
    maps[1, 1] *= 1 + torch.finfo(dtype).eps * torch.randn(16, dtype=dtype)  # nothing but rounding
    assert has_constant_map(maps, concepts).tolist() == [False, True, True]


def test_a_faint_contrast_is_a_contrast():
    maps = 1 / 77 + 1e-4 * torch.rand(1, 2, 16, generator=torch.Generator().manual_seed(0))
    assert has_constant_map(maps, torch.tensor([[0, 0]])).tolist() == [False]


def test_constant_padding_is_no_constant_map():
    maps = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    assert has_constant_map(maps, torch.tensor([[0, PADDING]])).tolist() == [False]
