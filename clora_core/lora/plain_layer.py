"""A layer's update as a product of two factors, which is all that a plain LoRA can hold.

Updates that are such a product stay as they are. Of any other one the whole difference D of the
weight is made and cut to a low rank: D_r = U_r U_r^T D with the r strongest left singular vectors,
the best that rank allows (Eckart and Young). The error is ||D - D_r||_F / ||D||_F, measured on the
numbers that are written.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.difference import Difference
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.kronecker import Kronecker
from clora_core.lora.kinds.together import Together
from clora_core.lora.kinds.update import Update, weight_of


@dataclass(frozen=True, kw_only=True)
class RankLimits:
    """How a difference is cut: to the lowest rank that has the error, and no higher one than this.

    Attributes:
        max_rank: The highest rank; None for none.
        max_error: ||D - D_r||_F / ||D||_F that a layer may have; 0 keeps all that is not rounding.
        cuts_factors: Products of two factors above ``max_rank`` are cut, too.
    """

    max_rank: int | None
    max_error: float
    cuts_factors: bool = False


@dataclass(frozen=True, kw_only=True)
class PlainLayer:
    """A layer of a plain LoRA, and how near it is to what it stands for.

    Attributes:
        factor: In the layer's own form and in the numbers that are written.
        is_cut: A difference was cut; otherwise the factors are the file's own.
        norm: ||D||_F.
        error: ||D - D_r||_F / ||D||_F; 0 where D is 0.
    """

    factor: Factor
    is_cut: bool
    norm: float
    error: float


def plain_layer(
    update: Update,
    module: nn.Module,
    limits: RankLimits,
    dtype: torch.dtype,
    *,
    folds_scale: bool = False,
) -> PlainLayer | None:
    """Return an update as a plain LoRA's layer; None if it changes no weight of two sides.

    A trained bias beside a weight's update has no place in it and is left out.

    Args:
        update: Of the layer.
        module: The layer. Updates that do not depend on the base model's weights look at the
            weight's shape alone.
        limits: Of the rank.
        dtype: Of the numbers that are written.
        folds_scale: The file has no strength beside the factors, so it becomes part of one.
    """
    if weight_of(module).ndim == 1:
        return None
    inner = update.updates if isinstance(update, Together) else (update,)
    weights = [each for each in inner if not _is_bias(each)]
    if not weights:
        return None
    alone = weights[0] if len(weights) == 1 else Together(tuple(weights))
    found = _matrix(alone, module)
    is_kept = isinstance(alone, Factor) and not (
        limits.cuts_factors and limits.max_rank is not None and alone.rank > limits.max_rank
    )
    factor = alone.fitted(module) if isinstance(alone, Factor) and is_kept else None
    factor = _cut(found, alone, module, limits) if factor is None else factor
    up, scale = (
        (factor.up.double() * factor.scale, 1.0) if folds_scale else (factor.up, factor.scale)
    )
    written = Factor(factor.down.to(dtype), up.to(dtype), scale)
    norm = float(torch.linalg.vector_norm(found))
    rest = found - _matrix(written, module)
    error = float(torch.linalg.vector_norm(rest)) / norm if norm else 0.0
    return PlainLayer(factor=written, is_cut=not is_kept, norm=norm, error=error)


def _matrix(update: Update, module: nn.Module) -> Float[Tensor, "out in_kernel"]:
    found = update.applied(module, torch.float64).matrix()
    if found is None:
        raise TypeError(f"an update of a weight without a difference: {type(update).__name__}")
    return found


def _is_bias(update: Update) -> bool:
    return isinstance(update, Difference) and update.weight is None


def _cut(
    difference: Float[Tensor, "out in_kernel"],
    update: Update,
    module: nn.Module,
    limits: RankLimits,
) -> Factor:
    """Return the best product of the rank that ``limits`` allow, in float64."""
    directions = _of_kronecker(update) if isinstance(update, Kronecker) else _of_matrix(difference)
    strengths = directions.strengths
    rank = _rank(strengths, max(difference.shape), limits)
    roots = strengths[:rank].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    up, down = directions.strongest(rank)
    weight = weight_of(module)
    return Factor(
        (down * roots[:, None]).reshape(rank, *weight.shape[1:]).contiguous(),
        (up * roots).reshape(*up.shape, *(1,) * (weight.ndim - 2)).contiguous(),
        1.0,
    )


@dataclass(frozen=True, eq=False)
class _Directions:
    """A singular value decomposition, the strongest direction first.

    Attributes:
        strengths: Singular values.
        strongest: Returns left and right singular vectors of the first so many.
    """

    strengths: Float[Tensor, " rank"]
    strongest: Callable[[int], tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in_kernel"]]]


def _of_matrix(matrix: Float[Tensor, "out in_kernel"]) -> _Directions:
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.mT if is_tall else matrix
    # By the smaller side's Gram matrix: exact to 1e-8 of the strongest direction, and far cheaper
    # than a decomposition of the matrix itself.
    _, vectors = torch.linalg.eigh(wide @ wide.mT)
    vectors = vectors.flip(1)
    projected = vectors.mT @ wide
    strengths = torch.linalg.vector_norm(projected, dim=1)

    def strongest(rank: int) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in_kernel"]]:
        tiny = torch.finfo(torch.float64).tiny
        left, right = vectors[:, :rank], projected[:rank] / strengths[:rank, None].clamp_min(tiny)
        return (right.mT, left.mT) if is_tall else (left, right)

    return _Directions(strengths, strongest)


def _of_kronecker(update: Kronecker) -> _Directions:
    """Return the directions of a Kronecker product, which are the products of its factors' own."""
    first = torch.linalg.svd(update.w1.double() * update.scale, full_matrices=False)
    second = torch.linalg.svd(update.w2.double().flatten(start_dim=1), full_matrices=False)
    products = torch.outer(first.S, second.S)
    strengths, order = products.flatten().sort(descending=True, stable=True)

    def strongest(rank: int) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in_kernel"]]:
        one, other = order[:rank] // len(second.S), order[:rank] % len(second.S)
        up = torch.einsum("ar,br->abr", first.U[:, one], second.U[:, other])
        down = torch.einsum("rc,rd->rcd", first.Vh[one], second.Vh[other])
        return up.flatten(end_dim=1), down.flatten(start_dim=1)

    return _Directions(strengths, strongest)


def _rank(strengths: Float[Tensor, " rank"], side: int, limits: RankLimits) -> int:
    """Return the lowest rank whose rest is no larger than the error, 1 at least."""
    squares = strengths.square()
    rests = (squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(1e-300)).sqrt()
    rounding = side * torch.finfo(torch.float64).eps
    needed = int((rests > max(limits.max_error, rounding)).sum())
    return max(1, needed if limits.max_rank is None else min(needed, limits.max_rank))
