"""OFT and BOFT: orthogonal rotations of a layer's outputs or inputs, in blocks.

A block is Cayley's transform of a skew-symmetric matrix. OFT (arXiv 2306.07280) rotates each block
of channels by itself; BOFT (arXiv 2311.06243) takes such steps one after the other and shuffles the
channels between them as a butterfly does. What one step adds to the outputs is made from the
layer's own output, so nothing of the layer's size is kept; several steps become one matrix.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.difference import WeightTerm
from clora_core.lora.kinds.update import (
    Applied,
    Term,
    along_channels,
    full_rank,
    linear_map,
    num_bytes,
    weight_of,
    wide,
)


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotations in blocks.

    Attributes:
        steps: Blocks of each step; row i of a block makes channel i.
        gain: By which each output is multiplied at the end; None for none.
        is_butterfly: Channels are shuffled around each step.
        of_inputs: It turns the layer's inputs and not its outputs.
    """

    steps: Float[Tensor, "step block side side"]
    gain: Float[Tensor, " out"] | None = None
    is_butterfly: bool = False
    of_inputs: bool = False

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return num_bytes(self.steps, self.gain)

    def to(self, device: torch.device) -> "Rotation":
        """Return the update on ``device``."""
        gain = None if self.gain is None else self.gain.to(device)
        return replace(self, steps=self.steps.to(device), gain=gain)

    def applied(self, module: nn.Module, dtype: torch.dtype) -> Applied:
        """Return what it adds to ``module``."""
        gain = None if self.gain is None else self.gain.to(wide(dtype))
        precise = replace(self, steps=self.steps.to(wide(dtype)), gain=gain)
        return Applied(None, (precise._term(module, dtype),), full_rank(module))

    def _term(self, module: nn.Module, dtype: torch.dtype) -> Term:
        weight = weight_of(module)
        num_inputs = weight[0].numel()
        gain = None if self.gain is None else (self.gain - 1).to(dtype)
        if len(self.steps) == 1 and self.of_inputs and num_inputs == weight.shape[1]:
            return InputRotationTerm(_less_one(self.steps[0]).to(dtype), gain, module)
        if len(self.steps) == 1 and not self.of_inputs and not self.is_butterfly:
            return OutputRotationTerm(_less_one(self.steps[0]).to(dtype), gain, module)
        if not self.of_inputs and len(weight) < num_inputs:
            # Each step would move all outputs there and back; one product of all steps does not.
            like = self.steps
            one = torch.eye(len(weight), dtype=like.dtype, device=like.device)
            whole = _less_one(self._turned(one).mT[None])
            return OutputRotationTerm(whole.to(dtype), gain, module)
        # A kernel's places are turned with the channels, so there is no input to turn.
        rows = weight.to(self.steps).flatten(start_dim=1)
        turned = self._turned_back(rows) if self.of_inputs else self._turned(rows.mT).mT
        changed = turned if self.gain is None else turned * self.gain[:, None]
        return WeightTerm((changed - rows).reshape(weight.shape).to(dtype), module)

    def _turned(self, values: Float[Tensor, "... channel"]) -> Float[Tensor, "... channel"]:
        """Return ``values`` after all steps."""
        for number, blocks in enumerate(self.steps):
            values = self._step(values, blocks, 2**number * (blocks.shape[-1] // 2))
        return values

    def _turned_back(self, values: Float[Tensor, "... channel"]) -> Float[Tensor, "... channel"]:
        """Return ``values`` before all steps."""
        for number, blocks in reversed(tuple(enumerate(self.steps))):
            values = self._step(values, blocks.mT, 2**number * (blocks.shape[-1] // 2))
        return values

    def _step(
        self,
        values: Float[Tensor, "... channel"],
        blocks: Float[Tensor, "block side side"],
        half: int,
    ) -> Float[Tensor, "... channel"]:
        if self.is_butterfly:
            values = values.unflatten(-1, (-1, 2, half)).mT.flatten(-3)
        values = _of_rows(blocks, values)
        if self.is_butterfly:
            values = values.unflatten(-1, (-1, half, 2)).mT.flatten(-3)
        return values


@dataclass(frozen=True, eq=False)
class OutputRotationTerm:
    """The outputs without bias, rotated, less themselves.

    Attributes:
        blocks: The rotation less 1: a channel is mostly what it was, and in half precision the
            rotation itself would lose the digits of what it changes.
        gain: By which each output is multiplied after it, less 1; None for nothing.
        module: The layer.
    """

    blocks: Float[Tensor, "block side side"]
    gain: Float[Tensor, " out"] | None
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the rotation changes of ``output``."""
        del x
        bare = without_bias(output, self.module)
        change = _of_channels(self.blocks, bare, self.module)
        if self.gain is None:
            return change
        return change + (bare + change) * along_channels(self.gain, output, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the change of the layer's weight."""
        weight = weight_of(self.module).to(self.blocks).flatten(start_dim=1)
        return _gained(_of_rows(self.blocks, weight.mT).mT, weight, self.gain)


@dataclass(frozen=True, eq=False)
class InputRotationTerm:
    """What the layer makes of its inputs rotated, less what it makes of them.

    Attributes:
        blocks: The rotation less 1, as of the outputs.
        gain: By which each output is multiplied after it, less 1; None for nothing.
        module: The layer.
    """

    blocks: Float[Tensor, "block side side"]
    gain: Float[Tensor, " out"] | None
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the rotation of ``x`` changes of the output."""
        change = _of_channels(self.blocks, x, self.module)
        made = linear_map(change, weight_of(self.module), self.module)
        if self.gain is None:
            return made
        bare = without_bias(output, self.module)
        return made + (bare + made) * along_channels(self.gain, output, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the change of the layer's weight."""
        weight = weight_of(self.module).to(self.blocks).flatten(start_dim=1)
        return _gained(_of_rows(self.blocks.mT, weight), weight, self.gain)


def _gained(
    change: Float[Tensor, "out in_kernel"],
    weight: Float[Tensor, "out in_kernel"],
    gain: Float[Tensor, " out"] | None,
) -> Float[Tensor, "out in_kernel"]:
    return change if gain is None else change + (weight + change) * gain[:, None]


def _less_one(blocks: Float[Tensor, "block side side"]) -> Float[Tensor, "block side side"]:
    return blocks - torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)


def _of_rows(
    blocks: Float[Tensor, "block side side"], values: Float[Tensor, "... channel"]
) -> Float[Tensor, "... channel"]:
    cut = values.unflatten(-1, (len(blocks), -1))
    return torch.einsum("bij,...bj->...bi", blocks, cut).flatten(-2)


def _of_channels(
    blocks: Float[Tensor, "block side side"], values: Float[Tensor, "lane ..."], module: nn.Module
) -> Float[Tensor, "lane ..."]:
    """Return the blocks times a layer's input or output."""
    if not isinstance(module, nn.Conv2d):
        return _of_rows(blocks, values)
    cut = values.unflatten(1, (len(blocks), -1)).flatten(start_dim=3)
    return (blocks @ cut).reshape(values.shape)  # [lane, block, side, position]


def cayley(
    skew: Float[Tensor, "... side side"], limit: float | None = None
) -> Float[Tensor, "... side side"]:
    """Return (1 + Q)(1 - Q)^-1 of each block.

    Args:
        skew: The blocks Q, skew-symmetric.
        limit: Norm to which all blocks together are shortened; None for no limit.
    """
    if limit is not None:
        length = torch.linalg.vector_norm(skew) + 1e-8
        skew = skew * (limit / length) if bool(length > limit) else skew
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return torch.linalg.solve(one - skew, one + skew, left=False)


def cayley_series(
    skew: Float[Tensor, "block side side"], num_terms: int
) -> Float[Tensor, "block side side"]:
    """Return the first terms of the series of (1 + Q)(1 - Q)^-1, as peft trains with them.

    1 + 2 Q + 2 Q^2 + ... and the last term once.
    """
    num_terms = 4 if num_terms == 3 else num_terms  # which are the same to peft
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    total, power = one.expand_as(skew), one.expand_as(skew)
    for number in range(1, num_terms):
        power = power @ skew
        total = total + power * (1 if number == num_terms - 1 and num_terms > 2 else 2)
    return total


def without_bias(output: Float[Tensor, "lane ..."], module: nn.Module) -> Float[Tensor, "lane ..."]:
    """Return a layer's output less its bias."""
    bias: Float[Tensor, " out"] | None = getattr(module, "bias", None)
    if bias is None:
        return output
    return output - along_channels(bias.detach(), output, module)
