"""The closed forms against float64 least squares, the published formula and L-BFGS."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clora_core.fuse.moments import Moments
from clora_core.fuse.solve import constrained, least_squares, pseudo_inverse
from clora_core.recipe.errors import FusionError

CPU = torch.device("cpu")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Layer:
    """Some concepts' inputs of one linear layer, and the delta of each."""

    def __init__(self, *, concepts=2, rank=3, width=8, outputs=6, samples=5, seed=0):
        self.downs = [random(rank, width, seed=seed + 10 * n) for n in range(concepts)]
        self.ups = [random(outputs, rank, seed=seed + 10 * n + 1) for n in range(concepts)]
        self.inputs = [random(samples, width, seed=seed + 10 * n + 2) for n in range(concepts)]
        self.deltas = [up @ down for up, down in zip(self.ups, self.downs, strict=True)]

    def moments(self, **changes):
        given = {"downs": self.downs, "ups": self.ups, **changes}
        moments = Moments(given["downs"], given["ups"], self.inputs[0].shape[1], CPU)
        for index, x in enumerate(self.inputs):
            moments.add(index, x)
        return moments

    def loss(self, delta):
        pairs = zip(self.inputs, self.deltas, strict=True)
        return float(sum(((x @ (delta - own).mT) ** 2).sum() for x, own in pairs))

    def least_squares(self, rcond=None):
        """Return the minimum by LAPACK's singular values, nearest to zero."""
        x = torch.cat(self.inputs)
        y = torch.cat([x @ own.mT for x, own in zip(self.inputs, self.deltas, strict=True)])
        return torch.linalg.lstsq(x, y, rcond=rcond, driver="gelsd").solution.mT


def delta_of(solved):
    return solved.factor.up @ solved.factor.down


@given(
    samples=st.integers(1, 12),
    concepts=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_gradient_fusion_is_the_least_squares_solution_nearest_to_zero(samples, concepts, seed):
    layer = Layer(samples=samples, concepts=concepts, seed=seed)
    solved = least_squares(layer.moments(), cutoff=0.0)
    # Eigenvalues are squares, so the smallest that count are the square of what lstsq counts.
    expected = layer.least_squares(rcond=1e-7)
    assert torch.allclose(delta_of(solved), expected, atol=1e-6)
    assert solved.loss == pytest.approx(layer.loss(expected), abs=1e-6)
    assert solved.scale == pytest.approx(layer.loss(torch.zeros_like(expected)), rel=1e-9)


def test_a_cutoff_is_that_of_singular_values_squared():
    layer = Layer(samples=20)
    solved = least_squares(layer.moments(), cutoff=0.2)
    assert torch.allclose(delta_of(solved), layer.least_squares(rcond=0.2**0.5), atol=1e-9)
    assert solved.loss == pytest.approx(layer.loss(delta_of(solved)), rel=1e-9)


def test_the_rank_is_at_most_the_sum_of_the_ranks():
    solved = least_squares(Layer(rank=2, width=30, outputs=20, samples=50).moments(), cutoff=0.0)
    assert solved.factor.rank == 4
    assert torch.linalg.matrix_rank(delta_of(solved)) == 4


def test_l_bfgs_as_published_finds_no_lower_loss():
    layer = Layer(samples=30, width=12)
    weight = torch.zeros(6, 12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight], lr=1, max_iter=500, history_size=25, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        pairs = zip(layer.inputs, layer.deltas, strict=True)
        loss = torch.stack([((x @ (weight - own).mT) ** 2).sum() for x, own in pairs]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    solved = least_squares(layer.moments(), cutoff=0.0)
    assert solved.loss <= layer.loss(weight.detach()) + 1e-9
    assert torch.allclose(delta_of(solved), weight.detach(), atol=1e-3)


def test_a_lora_without_the_layer_keeps_its_concept_as_the_base_model_has_it():
    layer = Layer(samples=3, width=10)
    moments = layer.moments(downs=[layer.downs[0], None], ups=[layer.ups[0], None])
    solved = least_squares(moments, cutoff=0.0)
    layer.deltas[1] = torch.zeros_like(layer.deltas[1])
    assert torch.allclose(delta_of(solved), layer.least_squares(), atol=1e-6)
    assert torch.allclose(layer.inputs[1] @ delta_of(solved).mT, torch.zeros(3, 6).double())


def published_merge(layer, captions):
    """Return Custom Diffusion's merge with plain inverses, as the paper writes it."""
    c = torch.cat(layer.inputs)
    v = torch.cat([x @ own.mT for x, own in zip(layer.inputs, layer.deltas, strict=True)])
    d = c @ torch.linalg.inv(captions.mT @ captions)
    return v.mT @ torch.linalg.inv(d @ c.mT).mT @ d


def test_custom_diffusions_merge_is_the_published_formula():
    layer = Layer(samples=3, width=12)
    captions = random(200, 12, seed=99)
    solved = constrained(layer.downs, layer.ups, layer.inputs, captions, cutoff=0.0)
    assert torch.allclose(delta_of(solved), published_merge(layer, captions), atol=1e-6)
    assert solved.loss < 1e-12


def test_every_concept_keeps_the_output_of_its_own_lora_and_captions_move_least():
    layer = Layer(samples=2, width=12)
    captions = random(200, 12, seed=7)
    delta = delta_of(constrained(layer.downs, layer.ups, layer.inputs, captions, cutoff=0.0))
    for x, own in zip(layer.inputs, layer.deltas, strict=True):
        assert torch.allclose(x @ delta.mT, x @ own.mT, atol=1e-8)
    # Any other delta that gives the same outputs differs by what the words do not see.
    words = torch.cat(layer.inputs)
    unseen = torch.eye(12).double() - torch.linalg.pinv(words) @ words
    moved = float(((captions @ delta.mT) ** 2).sum())
    for seed in range(5):
        other = delta + 0.1 * random(6, 12, seed=seed) @ unseen
        assert torch.allclose(words @ other.mT, words @ delta.mT, atol=1e-8)
        assert float(((captions @ other.mT) ** 2).sum()) > moved


def test_words_that_no_caption_has_can_still_move():
    layer = Layer(samples=2, width=12)
    captions = random(200, 12, seed=7)
    captions[:, 8:] = 0.0
    solved = constrained(layer.downs, layer.ups, layer.inputs, captions, cutoff=1e-3)
    assert solved.loss < 0.01 * solved.scale


def test_moments_that_are_not_finite_say_what_to_do():
    with pytest.raises(FusionError, match=r"not finite.*float32"):
        pseudo_inverse(torch.full((2, 2), torch.nan).double(), 0.0)
    captions = random(20, 12, seed=7)
    captions[0, 0] = torch.inf
    layer = Layer(width=12)
    with pytest.raises(FusionError, match="not finite"):
        constrained(layer.downs, layer.ups, layer.inputs, captions, cutoff=0.01)


def test_a_pseudo_inverse_leaves_small_directions_out():
    vectors, _ = torch.linalg.qr(random(4, 4, seed=3))
    matrix = vectors @ torch.diag(torch.tensor([4.0, 1.0, 0.1, 0.0]).double()) @ vectors.mT
    expected = vectors @ torch.diag(torch.tensor([0.25, 1.0, 0.0, 0.0]).double()) @ vectors.mT
    assert torch.allclose(pseudo_inverse(matrix, 0.1), expected)
    assert torch.allclose(pseudo_inverse(matrix, 0.0), torch.linalg.pinv(matrix), atol=1e-9)
