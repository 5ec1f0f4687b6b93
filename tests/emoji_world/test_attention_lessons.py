"""What attention is taught: its loss is the definition, and guessing never pays."""

import math

import pytest
import torch

from emoji_world.training.attention import grounding_loss, share_inside, subject_spread


@pytest.fixture
def masks() -> torch.Tensor:
    """Two scenes of two subjects: left and right, close enough that their rims touch."""
    masks = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    masks[:, 0, 6:12, 1:8] = 255
    masks[:, 1, 6:12, 8:15] = 255
    masks[1] = masks[1, [1, 0, 2]]
    return masks


OWNERS = torch.tensor([[0, 1, 2, 1], [0, 1, 2, 1]])


def test_the_spread_sums_to_one_and_is_nowhere_denser_than_inside(masks):
    spread = subject_spread(masks)
    assert torch.allclose(spread[:, :2].sum(-1), torch.ones(2, 2))
    assert spread[:, 2].sum() == 0
    left = spread[0, 0].view(16, 16)
    inside = left[7:11, 2:7]
    assert torch.allclose(inside, left.max())
    assert (left[6, 1:8] < left.max()).all()


def test_the_grounding_loss_is_the_mean_divergence_written_as_a_loop(masks):
    torch.manual_seed(0)
    maps = [torch.rand(2, 256, 4) for _ in range(3)]
    spread = subject_spread(masks)
    wanted = []
    for attention in maps:
        for scene in range(2):
            for token in (1, 2, 3):
                aim = spread[scene, OWNERS[scene, token] - 1]
                given = attention[scene, :, token] / attention[scene, :, token].sum()
                terms = [
                    p * (math.log(p) - math.log(q + 1e-6))
                    for p, q in zip(aim.tolist(), given.tolist(), strict=True)
                    if p > 0
                ]
                wanted.append(sum(terms))
    loss = grounding_loss(maps, masks, OWNERS)
    assert loss.item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)


def test_a_map_that_is_the_spread_loses_nothing(masks):
    spread = subject_spread(masks)
    maps = torch.ones(2, 256, 4)
    for token in (1, 2, 3):
        maps[:, :, token] = torch.stack([spread[s, OWNERS[s, token] - 1] for s in range(2)])
    assert grounding_loss([maps], masks, OWNERS).abs().item() < 2e-3
    assert share_inside([maps], masks, OWNERS) == pytest.approx(1.0)


def test_where_a_subject_may_be_left_or_right_both_sides_beat_a_spike_between_them(masks):
    spread = subject_spread(masks)
    both = (spread[0, 0] + spread[0, 1]) / 2
    between = torch.zeros(256)
    between[8 * 16 + 7 : 8 * 16 + 9] = 0.5
    evenly, spiked = (one.view(1, 256, 1).expand(2, 256, 4) for one in (both, between))
    # The spike lies within one cell of either subject, so by the share inside it would win.
    assert share_inside([spiked], masks, OWNERS) > share_inside([evenly], masks, OWNERS)
    assert grounding_loss([evenly], masks, OWNERS) < grounding_loss([spiked], masks, OWNERS)
    assert grounding_loss([evenly], masks, OWNERS).item() == pytest.approx(math.log(2), abs=0.1)
