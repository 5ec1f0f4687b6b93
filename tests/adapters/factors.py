"""Random factors, seeded by what they are for, and how large they must be.

An adapter of the corpus changes a weight by about a third of it, so that no test can pass with
one that does nothing.
"""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from adapters.case import AdapterCase, Effect, Layer, Parts

SHARE = 1 / 3
"""Size of the difference, as a share of the base weight's."""


class Source:
    """Random numbers of one layer of one case; every part has its own."""

    def __init__(self, case: AdapterCase, layer: Layer) -> None:
        self._label = f"{case.kind}/{case.family}/{case.rank}/{case.seed}/{'.'.join(layer.place)}"

    def normal(self, part: str, shape: Iterable[int]) -> Tensor:
        """Return standard normal numbers in float32."""
        digest = hashlib.sha256(f"{self._label}/{part}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        return torch.randn(tuple(shape), generator=generator)

    def fill(self, module: nn.Module, *, spread: float = 1.0, around: float = 0.0) -> None:
        """Overwrite all parameters of ``module``."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(around + spread * self.normal(name, parameter.shape))


def to_share(parts: Parts, names: Iterable[str], effect: Callable[[Parts], Effect], layer: Layer):
    """Return ``parts`` with those of ``names`` made so large that the weight changes by a third.

    Args:
        parts: Of the layer.
        names: Parts in which the difference is linear together.
        effect: What parts do.
        layer: That they are for.
    """
    size = effect(parts).weight.norm() / layer.weight.norm()
    factor = float(SHARE / size)
    return {n: t * factor if n in tuple(names) else t for n, t in parts.items()}


def rotation_spread(block: int) -> float:
    """Return the spread of a block's numbers that turns a weight by about a third.

    The Cayley map of a small Q is 1 + 2Q, and Q is the difference of the block and its transpose.
    """
    return SHARE / (2 * (2 * max(block - 1, 1)) ** 0.5)


def magnitudes(norms: Tensor, draws: Tensor) -> Tensor:
    """Return DoRA magnitudes near the norms that they stand for, never 0."""
    return (norms * (1 + 0.2 * draws.reshape(norms.shape).clamp(-2, 2))).float()


def norms_along(weight: Tensor, axis: int) -> Tensor:
    """Return the norms of a weight's outputs (axis 0) or inputs (1), with its dimensions kept."""
    others = [dim for dim in range(weight.ndim) if dim != axis]
    return weight.square().sum(others, keepdim=True).sqrt()
