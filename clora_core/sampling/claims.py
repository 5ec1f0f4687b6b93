"""What each concept claims of the image: from attention maps to numbers between 0 and 1.

Several concepts may claim one place; what nobody claims is the base's. The shares a gate works
with are the claims within their regions, divided where they add up to more than 1.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from clora_core.recipe.methods import GateRecipe
from clora_core.sampling.balanced import balanced_argmax

CORE_SHARE = 0.1
"""Positions that a concept's similarity starts from, as a share of all (FreeFuse)."""

SIMILARITY_TEMPERATURE = 1000.0
"""Of the softmax over positions that similarities go through (FreeFuse, Stable Diffusion XL)."""


def claims(
    maps: Float[Tensor, "row concept position token"],
    tokens: Int[Tensor, "row concept slot"],
    features: Float[Tensor, "row position feature"] | None,
    recipe: GateRecipe,
    *,
    threshold: float,
    map_shape: tuple[int, int],
) -> Float[Tensor, "row concept map_height map_width"]:
    """Return each concept's claim on each position, 0 to 1.

    Args:
        maps: Attention probabilities in the text that each concept is read in.
        tokens: The concept's words there; -1 fills up.
        features: Self-attention features of the positions, for the source ``self``.
        recipe: How claims are made.
        threshold: Share of a concept's peak that a position must exceed.
        map_shape: Height and width of the maps.
    """
    words = _words(maps, tokens).unflatten(2, map_shape)  # [row, concept, height, width, slot]
    if recipe.smoothing:
        words = _blurred(words, recipe.smoothing)
    if recipe.source == "self":
        if features is None:
            raise RuntimeError("masks by similarity without self-attention features")
        scores = similarity(words.flatten(2, 3), tokens, features).unflatten(2, map_shape)
        lowest = scores.amin(dim=(2, 3), keepdim=True)
        relative = (scores - lowest) / _positive(scores.amax(dim=(2, 3), keepdim=True) - lowest)
    else:
        peaks = _positive(words.amax(dim=(2, 3), keepdim=True))
        scores = relative = (words / peaks).amax(dim=4)
    if recipe.kind == "balanced":
        return balanced_argmax(scores)
    if recipe.kind == "soft":
        return relative
    above = relative > threshold
    if recipe.kind == "argmax":
        best = functional.one_hot(relative.argmax(dim=1), relative.shape[1])
        above = above & best.movedim(-1, 1).bool()
    return (filled(above) if recipe.fill_holes else above).to(maps.dtype)


def shares(
    claimed: Float[Tensor, "row concept height width"],
    regions: Float[Tensor, "row concept height width"],
    replaced: Bool[Tensor, "row concept"],
) -> Float[Tensor, "row part height width"]:
    """Return what a gate takes: the base's share first, then each concept's; they add up to 1.

    Args:
        claimed: Claims, 0 to 1.
        regions: 1 where a concept may be.
        replaced: Concepts whose region is their claim.
    """
    within = torch.where(replaced[:, :, None, None], regions, claimed * regions)
    within = within / within.sum(dim=1, keepdim=True).clamp_min(1)
    rest = (1 - within.sum(dim=1, keepdim=True)).clamp_min(0)
    return torch.cat([rest, within], dim=1)


def similarity(
    words: Float[Tensor, "row concept position slot"],
    tokens: Int[Tensor, "row concept slot"],
    features: Float[Tensor, "row position feature"],
) -> Float[Tensor, "row concept position"]:
    """Return how like each concept's core every position is (FreeFuse, section "self concept").

    The core are the tenth of all positions where the concept's attention, mean over its words,
    stands out most from the others': K times its own less the others' sum.
    """
    real = (tokens >= 0).to(words.dtype)[:, :, None, :]  # [row, concept, 1, slot]
    attention = (words * real).sum(dim=3) / real.sum(dim=3).clamp_min(1)
    num_concepts = attention.shape[1]
    total = attention.sum(dim=1, keepdim=True)
    contrast = (num_concepts + 1) * attention - total  # K own - (sum of all - own)
    num_core = max(1, int(attention.shape[2] * CORE_SHARE))
    core = contrast.topk(num_core, dim=2).indices  # [row, concept, core]
    rows = torch.arange(len(features), device=features.device)[:, None, None]
    features = features.to(words.dtype)  # half precision would leave a few levels of likeness
    mean_core = features[rows, core].mean(dim=2)  # [row, concept, feature]
    alike = torch.einsum("rkf,rpf->rkp", mean_core, features)
    return (alike / SIMILARITY_TEMPERATURE).softmax(dim=2)


def filled(
    masks: Bool[Tensor, "row concept height width"],
) -> Bool[Tensor, "row concept height width"]:
    """Return ``masks`` with their holes: what no path over edges joins to the image's border."""
    outside = functional.pad(~masks, (1, 1, 1, 1), value=True)
    reached = torch.zeros_like(outside)
    reached[..., 0, 0] = True
    while True:
        spread = reached.clone()
        spread[..., 1:, :] |= reached[..., :-1, :]
        spread[..., :-1, :] |= reached[..., 1:, :]
        spread[..., :, 1:] |= reached[..., :, :-1]
        spread[..., :, :-1] |= reached[..., :, 1:]
        spread &= outside
        if torch.equal(spread, reached):
            return ~reached[..., 1:-1, 1:-1]
        reached = spread


def _words(
    maps: Float[Tensor, "row concept position token"], tokens: Int[Tensor, "row concept slot"]
) -> Float[Tensor, "row concept position slot"]:
    """Return the maps of each concept's own words, 0 where there are fewer."""
    index = tokens.clamp_min(0)[:, :, None, :].expand(-1, -1, maps.shape[2], -1)
    return maps.gather(3, index).masked_fill((tokens < 0)[:, :, None, :], 0)


def _blurred(
    words: Float[Tensor, "row concept height width slot"], deviation: float
) -> Float[Tensor, "row concept height width slot"]:
    """Return the maps after a Gaussian blur whose border values go on outside the image."""
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, device=words.device, dtype=words.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    images = words.movedim(4, 2)  # [row, concept, slot, height, width]
    flat = images.flatten(0, 2)[:, None]  # [image, 1, height, width]
    flat = functional.pad(flat, (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernel[None, None, :, None])
    flat = functional.conv2d(flat, kernel[None, None, None, :])
    return flat[:, 0].unflatten(0, images.shape[:3]).movedim(2, 4)


def _positive(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.clamp_min(torch.finfo(values.dtype).tiny)
