"""The two closed forms of fusing, for one linear layer at a time, in float64.

Both keep the rank of what they fuse: the result's factor to the output is all ingredients' side by
side, and only the factor from the input is solved for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.fuse.moments import Moments
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.errors import FusionError


@dataclass(frozen=True)
class SolvedLayer:
    """A fused layer.

    Attributes:
        factor: The fused delta.
        loss: What is left of the sum of squares over all inputs.
        scale: The same sum for a delta of zero, which ``loss`` is to be compared with.
    """

    factor: Factor
    loss: float
    scale: float


def least_squares(moments: Moments, *, cutoff: float) -> SolvedLayer:
    """Return the delta nearest to zero that minimises sum_i |(Delta - Delta_i) X_i|^2.

    Mix-of-Show's gradient fusion (arXiv 2305.18292, equation 4): with C_i = X_i X_i^T it is
    (sum_i Delta_i C_i)(sum_i C_i)^+.

    Args:
        moments: Of the layer's inputs.
        cutoff: Directions of the inputs whose eigenvalue is below this share of the largest count
            as unseen, and the delta leaves them alone.
    """
    ups = [up for up in moments.ups if up is not None]
    projected = [
        each for each, up in zip(moments.projected, moments.ups, strict=True) if up is not None
    ]
    up, stacked = torch.cat(ups, dim=1), torch.cat(projected)
    down = stacked @ pseudo_inverse(moments.total, cutoff)
    # |Delta X|^2 - 2 <Delta X, sum_i Delta_i X_i> + sum_i |Delta_i X_i|^2, from moments alone.
    gram = up.mT @ up
    fused = float(((down @ moments.total @ down.mT) * gram).sum())
    crossed = float(((down @ stacked.mT) * gram).sum())
    alone = sum(
        float(((each @ own.mT) * (u.mT @ u)).sum())
        for each, own, u in zip(moments.projected, moments.downs, moments.ups, strict=True)
        if u is not None
    )
    return SolvedLayer(_factor(down, up), max(fused - 2 * crossed + alone, 0.0), alone)


def constrained(
    downs: Sequence[Float[Tensor, "_ in"] | None],
    ups: Sequence[Float[Tensor, "out _"] | None],
    targets: Sequence[Float[Tensor, "_ in"]],
    regularisation: Float[Tensor, "sample in"],
    *,
    cutoff: float,
) -> SolvedLayer:
    """Return the delta that gives each target its own LoRA's output and moves captions least.

    Custom Diffusion's merge (arXiv 2212.04488, equation 4): with the targets' features C as rows,
    captions' features C_reg and d = C (C_reg^T C_reg)^-1, it is D (d C^T)^-1 d, where the columns
    of D are what each LoRA adds at its own targets.

    Args:
        downs: Each LoRA's factor from the input; None for one that leaves the layer alone.
        ups: Each LoRA's factor to the output, likewise.
        targets: Features of each concept's words.
        regularisation: Features of the captions.
        cutoff: Share of the largest eigenvalue: of the captions' moments it is added to all, so
            that words which no caption has can move; of d C^T smaller ones are taken for zero.
            0 is the published merge.
    """
    c = torch.cat(list(targets)).double()
    captions: Float[Tensor, "in in"] = regularisation.double().mT @ regularisation.double()
    d = c @ pseudo_inverse(_steadied(captions, cutoff), 0.0)
    inverse = pseudo_inverse(d @ c.mT, cutoff)
    solved: list[Float[Tensor, "rank in"]] = []
    start, loss, scale = 0, 0.0, 0.0
    kept = [up for up in ups if up is not None]
    for down, up, target in zip(downs, ups, targets, strict=True):
        end = start + len(target)
        if down is not None and up is not None:
            solved.append(down @ c[start:end].mT @ inverse[start:end] @ d)
        start = end
    up, down = torch.cat(kept, dim=1), torch.cat(solved)
    reached = c @ down.mT @ up.mT
    start = 0
    for own_down, own_up, target in zip(downs, ups, targets, strict=True):
        end = start + len(target)
        wanted = torch.zeros_like(reached[start:end])
        if own_down is not None and own_up is not None:
            wanted = c[start:end] @ own_down.mT @ own_up.mT
        loss += float((reached[start:end] - wanted).square().sum())
        scale += float(wanted.square().sum())
        start = end
    return SolvedLayer(_factor(down, up), loss, scale)


def pseudo_inverse(symmetric: Float[Tensor, "n n"], cutoff: float) -> Float[Tensor, "n n"]:
    """Return the pseudo-inverse of a positive matrix, small eigenvalues taken for zero.

    Args:
        symmetric: The matrix.
        cutoff: Share of the largest eigenvalue; never less than what rounding leaves.

    Raises:
        FusionError: A value is not finite.
    """
    if not bool(symmetric.isfinite().all()):
        raise FusionError(
            "what a layer sees is not finite, so nothing can be solved for it; fuse in float32 "
            "(resources.dtype)"
        )
    values, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    smallest = max(cutoff, len(values) * torch.finfo(values.dtype).eps)
    usable = values > smallest * values.max()
    kept = vectors[:, usable]
    return (kept / values[usable]) @ kept.mT


def _steadied(moments: Float[Tensor, "n n"], share: float) -> Float[Tensor, "n n"]:
    """Return the moments with a share of the largest eigenvalue added to all of them."""
    # The norm of a positive matrix is its largest eigenvalue; not finite, it stays so.
    largest = torch.linalg.matrix_norm(moments, 2) if bool(moments.isfinite().all()) else torch.nan
    return moments + share * largest * torch.eye(len(moments)).to(moments)


def _factor(down: Float[Tensor, "rank in"], up: Float[Tensor, "out rank"]) -> Factor:
    return Factor(down.contiguous(), up.contiguous(), 1.0)
