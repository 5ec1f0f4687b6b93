"""Balanced assignment: every position to one concept, every concept about the same area.

FreeFuse's "stabilised balanced argmax" (github.com/yaoliliu/FreeFuse at 720644e,
``freefuse_sdxl_pipeline.py``) with its constants: in 15 rounds, concepts with too many positions
get a bias against them, neighbours vote for each other, and each concept pulls towards its centre.
Where the published code takes the spread of the scores over the whole batch, ours is each row's.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

ROUNDS = 15
STEP = 0.01
STEP_DECAY = 0.95
MOMENTUM = 0.2
GRAVITY = 3e-5
NEIGHBOURS = 3e-5
STRETCH = 1.3
"""How much wider the image is than high to the pull towards a concept's centre."""


def balanced_argmax(
    scores: Float[Tensor, "row concept height width"],
) -> Float[Tensor, "row concept height width"]:
    """Return 1 where a concept has the position and 0 elsewhere.

    Args:
        scores: How much each position is the concept's, in the small range of a softmax over
            positions: the constants are made for it.
    """
    num_concepts, height, width = scores.shape[1:]
    logits = scores.flatten(start_dim=2)  # [row, concept, position]
    y = torch.linspace(-1, 1, height, device=scores.device, dtype=scores.dtype)
    x = torch.linspace(-1, 1, width, device=scores.device, dtype=scores.dtype) * STRETCH
    y, x = y[:, None].expand(height, width).flatten(), x.expand(height, width).flatten()
    fair = height * width / num_concepts
    spread = (logits.amax(dim=(1, 2)) - logits.amin(dim=(1, 2))).clamp_min(1e-4)[:, None, None]
    kernel = torch.ones(num_concepts, 1, 3, 3, device=scores.device, dtype=scores.dtype) / 8
    kernel[:, :, 1, 1] = 0
    bias = torch.zeros_like(logits[:, :, :1])  # [row, concept, 1]
    smooth = _stretched(logits, dim=2)
    current = logits
    for number in range(ROUNDS):
        # The published code takes the bias off twice here: it is in ``current`` since last time.
        biased = current - bias
        smooth = (1 - MOMENTUM) * _stretched(biased, dim=1) + MOMENTUM * smooth
        mass = smooth.sum(dim=2, keepdim=True) + 1e-6
        centre_y = (smooth * y).sum(dim=2, keepdim=True) / mass
        centre_x = (smooth * x).sum(dim=2, keepdim=True) / mass
        pull = (y - centre_y) ** 2 + (x - centre_x) ** 2
        counts = _one_hot(biased).sum(dim=2, keepdim=True)
        bias = bias + torch.sign(counts - fair) * STEP * spread * STEP_DECAY**number
        bias = bias.clamp(-10 * spread, 10 * spread)
        image = smooth.unflatten(2, (height, width))
        votes = functional.conv2d(image, kernel, padding=1, groups=num_concepts).flatten(2)
        current = logits - bias + NEIGHBOURS * votes - GRAVITY * pull
    return _one_hot(current).unflatten(2, (height, width))


def _one_hot(
    logits: Float[Tensor, "row concept position"],
) -> Float[Tensor, "row concept position"]:
    best = logits.argmax(dim=1)
    return functional.one_hot(best, logits.shape[1]).mT.to(logits.dtype)


def _stretched(
    values: Float[Tensor, "row concept position"], dim: int
) -> Float[Tensor, "row concept position"]:
    """Return ``values`` stretched to 0 .. 1 along one dimension."""
    lowest = values.amin(dim=dim, keepdim=True)
    return (values - lowest) / (values.amax(dim=dim, keepdim=True) - lowest + 1e-8)
