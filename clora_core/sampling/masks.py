"""Which variant paints which place: binary masks from attention maps, and the blend by them.

ArXiv 2403.19776, section 3.3, with the published code's choices where the paper is silent: a
position is a concept's where any of its own tokens' maps is strictly above a share of that map's
peak; positions of nobody go to the base variant; where masks overlap predictions are averaged.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def concept_masks(
    maps: Float[Tensor, "row variant position token"],
    tokens: Int[Tensor, "row variant slot"],
    *,
    threshold: float,
) -> Float[Tensor, "row variant position"]:
    """Return each variant's mask, 1 inside and 0 outside; variant 0 gets what nobody claims.

    Args:
        maps: Attention probabilities of every variant.
        tokens: Token positions a variant's mask is made from; -1 fills up. Variant 0 has none.
        threshold: Share of a map's own peak that a position must exceed.
    """
    own = _gathered(maps, tokens)
    above = own > threshold * own.amax(dim=2, keepdim=True)
    masks = (above & (tokens >= 0)[:, :, None, :]).any(dim=3)
    return with_background(masks.to(maps.dtype))


def own_maps(
    maps: Float[Tensor, "row variant position token"], tokens: Int[Tensor, "row variant slot"]
) -> Float[Tensor, "row variant position"]:
    """Return the maximum over each variant's own tokens' maps, to be looked at."""
    own = _gathered(maps, tokens)
    return own.masked_fill((tokens < 0)[:, :, None, :], 0).amax(dim=3)


def _gathered(
    maps: Float[Tensor, "row variant position token"], tokens: Int[Tensor, "row variant slot"]
) -> Float[Tensor, "row variant position slot"]:
    index = tokens.clamp_min(0)[:, :, None, :]  # [row, variant, 1, slot]
    return maps.gather(3, index.expand(-1, -1, maps.shape[2], -1))


def with_background(
    masks: Float[Tensor, "row variant *place"],
) -> Float[Tensor, "row variant *place"]:
    """Return ``masks`` with variant 0 set to the complement of all the others."""
    nobody = (masks[:, 1:].sum(dim=1, keepdim=True) == 0).to(masks.dtype)
    return torch.cat([nobody, masks[:, 1:]], dim=1)


def within_regions(
    masks: Float[Tensor, "row variant height width"],
    regions: Float[Tensor, "row variant height width"],
    replaced: Bool[Tensor, "row variant"],
) -> Float[Tensor, "row variant height width"]:
    """Return ``masks`` cut to their regions, or replaced by them where ``replaced`` says so."""
    cut = torch.where(replaced[:, :, None, None], regions, masks * regions)
    return with_background(cut)


def clean(
    masks: Float[Tensor, "row variant height width"],
) -> Float[Tensor, "row variant height width"]:
    """Return ``masks`` after 3x3 dilation, erosion, opening and closing, background anew."""

    def dilate(
        mask: Float[Tensor, "row variant height width"],
    ) -> Float[Tensor, "row variant height width"]:
        return functional.max_pool2d(mask, kernel_size=3, stride=1, padding=1)

    def erode(
        mask: Float[Tensor, "row variant height width"],
    ) -> Float[Tensor, "row variant height width"]:
        return 1 - dilate(1 - mask)

    cleaned = erode(dilate(masks))
    cleaned = dilate(erode(cleaned))
    cleaned = erode(dilate(cleaned))
    return with_background(cleaned)


def blend(
    predictions: Float[Tensor, "row variant channel height width"],
    masks: Float[Tensor, "row variant map_height map_width"] | None,
) -> Float[Tensor, "row channel height width"]:
    """Return the variants' predictions averaged where their masks say so.

    Masks are enlarged to the latents' size by nearest neighbour. Without masks every variant counts
    equally everywhere: with one variant that is its prediction, with K it is LoRA Composite.
    """
    if masks is None:
        return predictions.mean(dim=1)
    weights = functional.interpolate(masks, size=predictions.shape[-2:], mode="nearest")
    weights = weights[:, :, None]  # [row, variant, 1, height, width]
    return (predictions * weights).sum(dim=1) / weights.sum(dim=1)


def leakage(
    maps: Float[Tensor, "row concept height width"],
    masks: Float[Tensor, "row concept height width"],
) -> Float[Tensor, "row concept"]:
    """Return the share of each concept's attention that lies outside its mask.

    Args:
        maps: Each concept's own attention, not negative; its scale does not matter.
        masks: Each concept's mask, 1 inside and 0 outside.
    """
    outside = (maps * (1 - masks)).sum(dim=(2, 3))
    return outside / maps.sum(dim=(2, 3)).clamp_min(torch.finfo(maps.dtype).tiny)


def coverage_and_overlap(
    masks: Float[Tensor, "row variant height width"],
) -> tuple[Float[Tensor, "row concept"], Float[Tensor, " row"]]:
    """Return each concept's share of the map, and the share that two or more concepts claim."""
    concepts = masks[:, 1:]
    overlap = (concepts.sum(dim=1) > 1).to(masks.dtype).mean(dim=(1, 2))
    return concepts.mean(dim=(2, 3)), overlap
