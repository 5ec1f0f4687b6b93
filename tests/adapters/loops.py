"""The trainers' formulas as plain loops, for those that cannot be installed.

Everything is float64 and works on one layer's weight [out, in] or [out, in, height, width]; a
"flat" weight is [out, in * height * width] in row-major order.
"""

import math

import torch
from torch import Tensor

FLOAT32_EPS = torch.finfo(torch.float32).eps


def low_rank(up: Tensor, down: Tensor, scale: float, shape: torch.Size) -> Tensor:
    """Return the sum over ranks of up's column times down's row (sd-scripts networks/lora.py)."""
    up, down = up.reshape(up.shape[0], -1), down.reshape(down.shape[0], -1)
    total = torch.zeros(shape[0], shape[1:].numel(), dtype=torch.float64)
    for rank in range(down.shape[0]):
        total += torch.outer(up[:, rank], down[rank])
    return (scale * total).view(shape)


def hadamard(parts: dict[str, Tensor], scale: float, shape: torch.Size) -> Tensor:
    """Return LoHa's product of two low-rank matrices, entry by entry."""
    first = low_rank(parts["hada_w1_a"], parts["hada_w1_b"], 1.0, shape)
    return scale * first * low_rank(parts["hada_w2_a"], parts["hada_w2_b"], 1.0, shape)


def kronecker(first: Tensor, second: Tensor, scale: float, shape: torch.Size) -> Tensor:
    """Return ``second`` once for every entry of ``first``, times it, side by side."""
    (a, c), (b, d) = first.shape, second.shape[:2]
    total = torch.zeros(a * b, c * d, *second.shape[2:], dtype=torch.float64)
    for row in range(a):
        for column in range(c):
            block = first[row, column] * second
            total[row * b : (row + 1) * b, column * d : (column + 1) * d] = block
    return (scale * total).reshape(shape)


def tucker(core: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return [p, q, height, width] of core [i, j, height, width], [i, p] and [j, q]."""
    total = torch.zeros(first.shape[1], second.shape[1], *core.shape[2:], dtype=torch.float64)
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            outer = torch.outer(first[i], second[j])
            total += outer[:, :, None, None] * core[i, j]
    return total


def decomposed(weight: Tensor, magnitude: Tensor, eps: float) -> Tensor:
    """Return DoRA's weight: each output or input of ``weight`` with the length ``magnitude``.

    Args:
        weight: Base weight and low-rank difference together. ComfyUI divides by the norms of the
            base weight where the axis is the output; trainers do not.
        magnitude: [out, 1, ...] or [1, in, ...].
        eps: Added to each norm.
    """
    axis = 0 if magnitude.shape[0] == weight.shape[0] else 1
    found = weight.clone()
    for place, length in enumerate(magnitude.flatten()):
        part = weight.select(axis, place)
        found.select(axis, place).copy_(part * length / (part.norm() + eps))
    return found


def rotated_outputs(weight: Tensor, blocks: Tensor, limit: float, *, eps_as_kohya: bool) -> Tensor:
    """Return the weight with its outputs turned block by block (first OFT).

    sd-scripts networks/oft.py (OFTModule.get_weight, forward) and, with another epsilon, ComfyUI
    comfy/weight_adapter/oft.py (OFTDiff). The transpose of R acts on the rows.

    Args:
        weight: Of the layer.
        blocks: [number, size, size].
        limit: Largest norm of the skew matrices together.
        eps_as_kohya: How the limit is divided by.
    """
    skew = blocks - blocks.transpose(1, 2)
    size = float(skew.norm())
    if eps_as_kohya:
        skew = skew * ((min(size, limit) + 1e-8) / (size + 1e-8))
    elif limit and size + 1e-8 > limit:
        skew = skew * limit / (size + 1e-8)
    flat, side = weight.reshape(weight.shape[0], -1), blocks.shape[-1]
    found = torch.zeros_like(flat)
    for number, block in enumerate(skew):
        one = torch.eye(side, dtype=torch.float64)
        turn = (one + block) @ torch.linalg.inv(one - block)
        rows = slice(number * side, (number + 1) * side)
        found[rows] = turn.T @ flat[rows]
    return found.view(weight.shape)


def rotated_inputs(weight: Tensor, vectors: Tensor, *, is_scaled: bool) -> Tensor:
    """Return the weight with its inputs turned block by block (OFT v2).

    OneTrainer modules/module/oft_utils.py (OFTRotationModule) and LoRAModule.py (OFTModule): a
    linear layer turns its input, so R's transpose acts on the weight; a convolution turns its
    weight by R itself.

    Args:
        weight: Of the layer.
        vectors: [number, size * (size - 1) / 2], the upper triangles row by row; one for all
            blocks where they are shared.
        is_scaled: They are divided by twice the root of size - 1.
    """
    side = round((1 + math.sqrt(1 + 8 * vectors.shape[1])) / 2)
    flat = weight.reshape(weight.shape[0], -1)
    found = torch.zeros_like(flat)
    rows, columns = torch.triu_indices(side, side, 1)
    for number in range(flat.shape[1] // side):
        skew = torch.zeros(side, side, dtype=torch.float64)
        skew[rows, columns] = vectors[number % len(vectors)]
        skew = skew - skew.T
        if is_scaled:
            skew = skew / (2 * math.sqrt(side - 1))
        square = skew @ skew
        turn = torch.eye(side, dtype=torch.float64) + 2 * skew + 2 * square
        turn = turn + 2 * square @ skew + square @ square
        block = slice(number * side, (number + 1) * side)
        found[:, block] = flat[:, block] @ (turn if weight.ndim == 4 else turn.T)
    return found.view(weight.shape)
