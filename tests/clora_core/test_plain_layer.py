"""Updates cut to a low rank, against an independent decomposition."""

import math

import pytest
import torch
from torch import nn

from clora_core.lora.kinds.difference import Difference
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.kronecker import Kronecker
from clora_core.lora.kinds.together import Together
from clora_core.lora.plain_layer import RankLimits, plain_layer
from clora_core.lora.plain_lora import of_shape

WHOLE = RankLimits(max_rank=None, max_error=0.0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kronecker(*kernel: int) -> Kronecker:
    return Kronecker(normal(3, 4), normal(8, 5, *kernel, seed=1), 0.7)


UPDATES = {
    "wide": (Difference(normal(12, 30), None), (12, 30)),
    "tall": (Difference(normal(30, 12), None), (30, 12)),
    "convolution": (Difference(normal(8, 6, 3, 3), None), (8, 6, 3, 3)),
    "Kronecker": (kronecker(), (24, 20)),
    "Kronecker with a kernel": (kronecker(3, 3), (24, 20, 3, 3)),
    "Kronecker of a 1x1 convolution": (kronecker(), (24, 20, 1, 1)),
}


def difference(update, shape) -> torch.Tensor:
    return update.applied(of_shape(shape), torch.float64).matrix()


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_cut_is_the_best_of_its_rank_and_its_error_is_the_rest_s(name, rank):
    update, shape = UPDATES[name]
    limits = RankLimits(max_rank=rank, max_error=0.0)
    made = plain_layer(update, of_shape(shape), limits, torch.float64)
    strengths = torch.linalg.svdvals(difference(update, shape))
    rest = float(strengths[rank:].norm() / strengths.norm())
    assert made.is_cut
    assert made.factor.rank == rank
    assert made.error == pytest.approx(rest, rel=1e-9)
    assert made.norm == pytest.approx(float(strengths.norm()), rel=1e-12)


@pytest.mark.parametrize("name", UPDATES)
def test_a_whole_rank_is_exact(name):
    update, shape = UPDATES[name]
    made = plain_layer(update, of_shape(shape), WHOLE, torch.float32)
    found, wanted = difference(made.factor, shape), difference(update, shape)
    assert made.factor.rank == int(torch.linalg.matrix_rank(wanted))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6
    assert made.error < 1e-6


def test_the_rank_is_the_lowest_that_has_the_error():
    strengths = torch.tensor([8.0, 4.0, 2.0, 1.0])
    side = torch.linalg.qr(normal(6, 4).double()).Q
    other = torch.linalg.qr(normal(9, 4, seed=1).double()).Q
    update = Difference(side @ torch.diag(strengths.double()) @ other.mT, None)
    for allowed, rank in ((0.0, 4), (0.1, 4), (0.11, 3), (0.25, 2), (0.5, 1), (0.999, 1)):
        limits = RankLimits(max_rank=None, max_error=allowed)
        made = plain_layer(update, of_shape((6, 9)), limits, torch.float64)
        assert made.factor.rank == rank, allowed
        assert made.error == pytest.approx(
            math.hypot(*strengths[rank:].tolist(), 0.0) / math.sqrt(85), abs=1e-7
        )


def test_a_product_of_two_factors_stays_bit_for_bit():
    factor = Factor(normal(4, 9).half(), normal(6, 4).half(), 0.3)
    for limits in (WHOLE, RankLimits(max_rank=2, max_error=0.5)):
        made = plain_layer(factor, of_shape((6, 9)), limits, torch.float16)
        assert torch.equal(made.factor.down, factor.down)
        assert torch.equal(made.factor.up, factor.up)
        assert (made.factor.scale, made.error, made.is_cut) == (0.3, 0.0, False)


def test_a_product_of_more_ranks_than_were_asked_for_is_cut_if_one_says_so():
    factor = Factor(normal(4, 9), normal(6, 4), 0.3)
    limits = RankLimits(max_rank=2, max_error=0.0, cuts_factors=True)
    made = plain_layer(factor, of_shape((6, 9)), limits, torch.float32)
    assert (made.factor.rank, made.is_cut) == (2, True)
    assert made.error > 0.1


def test_a_half_says_what_its_rounding_costs():
    factor = Factor(normal(4, 9), normal(6, 4), 0.3)
    made = plain_layer(factor, of_shape((6, 9)), WHOLE, torch.float16)
    wanted = difference(factor, (6, 9))
    found = difference(made.factor, (6, 9))
    assert made.error == pytest.approx(float((found - wanted).norm() / wanted.norm()), rel=1e-12)
    assert 1e-5 < made.error < 1e-3


def test_a_strength_that_the_file_cannot_hold_is_in_the_factors():
    factor = Factor(normal(4, 9), normal(6, 4), 0.3)
    made = plain_layer(factor, of_shape((6, 9)), WHOLE, torch.float32, folds_scale=True)
    assert made.factor.scale == 1.0
    assert torch.allclose(difference(made.factor, (6, 9)), difference(factor, (6, 9)), atol=1e-6)


def test_biases_and_norms_have_no_place():
    bias = Difference(None, normal(6))
    both = Together((Factor(normal(4, 9), normal(6, 4), 1.0), bias))
    made = plain_layer(both, of_shape((6, 9)), WHOLE, torch.float32)
    assert made is not None
    assert not made.is_cut
    assert plain_layer(bias, of_shape((6, 9)), WHOLE, torch.float32) is None
    norm = Difference(normal(6), normal(6))
    assert plain_layer(norm, nn.LayerNorm(6), WHOLE, torch.float32) is None


def test_what_changes_nothing_becomes_a_layer_of_zeros():
    made = plain_layer(Difference(torch.zeros(6, 9), None), of_shape((6, 9)), WHOLE, torch.float32)
    assert (made.factor.rank, made.error, made.norm) == (1, 0.0, 0.0)
    assert not bool(difference(made.factor, (6, 9)).any())
