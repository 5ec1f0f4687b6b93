"""DoRA: the magnitude of a changed weight is trained apart (arXiv 2402.09353).

With V = W + Delta the layer's weight becomes V * m / |V|, the norm taken over each output, or over
each input channel, by whichever axis the magnitude m is of. Norm and bias are as in peft and
LyCORIS, which train such files: the norm is V's, and the bias is not rescaled. What is added to the
layer is the difference V * g - W with g = m / |V|: Delta rescaled, and W times g - 1.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.rotation import without_bias
from clora_core.lora.kinds.update import (
    Applied,
    LowRank,
    Term,
    Update,
    along_channels,
    linear_map,
    num_bytes,
    weight_of,
    wide,
)

Axis = Literal[0, 1]
"""Of a weight: 0 its outputs, 1 its inputs."""


@dataclass(frozen=True, eq=False)
class Decomposed:
    """An update with a magnitude of its own."""

    inner: Update
    magnitude: Float[Tensor, " channel"]
    axis: Axis

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return self.inner.num_bytes + num_bytes(self.magnitude)

    def to(self, device: torch.device) -> "Decomposed":
        """Return the update on ``device``."""
        return replace(self, inner=self.inner.to(device), magnitude=self.magnitude.to(device))

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        precise = self.inner.applied(module, wide(dtype))
        gain = self._gain(module, precise)
        low_rank = None
        if precise.low_rank is not None:
            up, down = precise.low_rank.up, precise.low_rank.down
            if self.axis == 0:
                up = up * gain.view(-1, *(1,) * (up.ndim - 1))
            else:
                down = down * gain.view(-1, *(1,) * (down.ndim - 2))
            low_rank = LowRank(down.to(dtype), up.to(dtype))
        gain_here = gain.to(dtype)
        inner = self.inner.applied(module, dtype).terms
        terms: list[Term] = [GainedTerm(each, gain_here, self.axis, module) for each in inner]
        terms.append(GainTerm((gain - 1).to(dtype), self.axis, module))
        return Applied(low_rank, tuple(terms), precise.rank)

    def _gain(self, module: nn.Module, inner: Applied) -> Float[Tensor, " channel"]:
        weight = weight_of(module)
        delta = inner.matrix()
        if delta is None:
            raise TypeError("no difference of a weight that could have a magnitude")
        changed = weight.to(delta.dtype) + delta.reshape(weight.shape)
        others = tuple(axis for axis in range(weight.ndim) if axis != self.axis)
        norm = torch.linalg.vector_norm(changed, dim=others)
        return self.magnitude.to(norm) / norm.clamp_min(torch.finfo(norm.dtype).eps)


@dataclass(frozen=True, eq=False)
class GainTerm:
    """The layer itself with its outputs or inputs multiplied."""

    gain: Float[Tensor, " channel"]
    axis: Axis
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the outputs without bias times the gain, or what the inputs times it make."""
        if self.axis == 0:
            bare = without_bias(output, self.module)
            return bare * along_channels(self.gain, output, self.module)
        scaled = x * along_channels(self.gain, x, self.module)
        return linear_map(scaled, weight_of(self.module), self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the layer's weight times the gain."""
        return _scaled(weight_of(self.module).to(self.gain.dtype), self.gain, self.axis)


@dataclass(frozen=True, eq=False)
class GainedTerm:
    """A term whose outputs or inputs are multiplied."""

    term: Term
    gain: Float[Tensor, " channel"]
    axis: Axis
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return the term's own delta, multiplied."""
        if self.axis == 1:
            return self.term.delta(x * along_channels(self.gain, x, self.module), output)
        made = self.term.delta(x, output)
        return made * along_channels(self.gain, made, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"] | None:
        """Return the term's difference, multiplied."""
        made = self.term.matrix()
        if made is None:
            return None
        return _scaled(made.reshape(weight_of(self.module).shape), self.gain, self.axis)


def _scaled(
    weight: Float[Tensor, "out in *kernel"], gain: Float[Tensor, " channel"], axis: Axis
) -> Float[Tensor, "out in_kernel"]:
    others = weight.ndim - 1 - axis
    return (weight * gain.view(-1, *(1,) * others)).flatten(start_dim=1)
