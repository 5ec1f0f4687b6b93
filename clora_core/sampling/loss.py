"""The contrastive loss that keeps concepts apart in the attention maps.

Maps of one concept, over all prompt variants, are positives of each other; maps of other concepts
are negatives (arXiv 2403.19776, equation 4: NT-Xent, each positive pair against the anchor's
negatives alone). A map counts less its minimum, so that a flat floor does not look alike.

Nothing here knows of models or prompts, and no row sees another: tensors in, one loss a row out.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PADDING = -1
"""Concept of an entry that fills up a row with fewer maps than its neighbours."""


def contrastive_loss(
    maps: Float[Tensor, "row map position"],
    concepts: Int[Tensor, "row map"],
    *,
    temperature: float,
) -> Float[Tensor, " row"]:
    """Return per row how far maps of one concept are from each other, against all the rest.

    For every ordered pair of maps of one concept the loss is the cross-entropy of picking the
    partner out of {partner} + {maps of other concepts}, by cosine similarity over ``temperature``;
    a row's loss is the mean over its pairs.

    Args:
        maps: Attention maps, one per token, in any positive scale.
        concepts: Which concept each map belongs to; ``PADDING`` for none.
        temperature: Softmax temperature, > 0. Smaller is sharper.

    Raises:
        ValueError: A row has no concept with two maps, so there is no pair to pull together.
    """
    valid = concepts != PADDING
    both = valid[:, :, None] & valid[:, None, :]  # [row, map, map]
    same = (concepts[:, :, None] == concepts[:, None, :]) & both
    identity = torch.eye(concepts.shape[1], dtype=torch.bool, device=maps.device)
    positive = same & ~identity
    num_pairs = positive.sum(dim=(1, 2))
    if bool((num_pairs == 0).any()):
        raise ValueError(
            f"no concept has two maps in rows {(num_pairs == 0).nonzero().flatten().tolist()}; "
            f"pass each concept's map from two variants"
        )
    centred = maps - maps.amin(dim=2, keepdim=True)
    smallest = torch.finfo(maps.dtype).tiny ** 0.5
    unit = centred / centred.norm(dim=2, keepdim=True).clamp_min(smallest)
    logits = unit @ unit.mT / temperature  # [row, map, map]
    negatives = logits.masked_fill(same | ~both, -torch.inf).logsumexp(dim=2, keepdim=True)
    terms = torch.logaddexp(logits, negatives) - logits
    return terms.masked_fill(~positive, 0).sum(dim=(1, 2)) / num_pairs


def has_constant_map(
    maps: Float[Tensor, "row map position"], concepts: Int[Tensor, "row map"]
) -> Bool[Tensor, " row"]:
    """Return which rows have a map without any contrast, whose gradient would mean nothing."""
    spread = maps.amax(dim=2) - maps.amin(dim=2)
    floor = 8 * torch.finfo(maps.dtype).eps * maps.abs().amax(dim=2)
    return ((spread <= floor) & (concepts != PADDING)).any(dim=1)
