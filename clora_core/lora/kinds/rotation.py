"""OFT and BOFT: orthogonal rotations of a layer's outputs or inputs, in blocks.

A block is Cayley's transform of a skew-symmetric matrix. OFT (arXiv 2306.07280) rotates each block
of channels by itself; BOFT (arXiv 2311.06243) takes such steps one after the other and shuffles the
channels between them as a butterfly does. What a rotation adds to the outputs is made from the
layer's own output, so nothing of the layer's size is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.lora.kinds.difference import WeightTerm
from clora_core.lora.kinds.update import (
    Applied,
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
        precise = Turn.of_steps(self.steps.to(wide(dtype)), self.is_butterfly)
        gain = None if self.gain is None else self.gain.to(wide(dtype)) - 1
        weight = weight_of(module)
        if self.of_inputs and weight[0, 0].numel() > 1 and weight.ndim > 2:
            # A kernel's places are turned with the channels, so there is no input to turn.
            values = InputRotationTerm(precise, gain, module).matrix()
            term = WeightTerm(values.reshape(weight.shape).to(dtype), module)
        else:
            kind = InputRotationTerm if self.of_inputs else OutputRotationTerm
            term = kind(precise.to(dtype), None if gain is None else gain.to(dtype), module)
        return Applied(None, (term,), full_rank(module))


@dataclass(frozen=True, eq=False)
class Turn:
    """What a rotation changes of channels.

    A channel is mostly what it was, so a rotation less 1 keeps the digits in half precision that
    the rotation itself would lose.

    Attributes:
        steps: Blocks of each step, less 1.
        is_butterfly: Before step i channels that are 2^i half blocks apart come into one block, and
            go back after it.
    """

    steps: Sequence[Float[Tensor, "block side side"]]
    is_butterfly: bool

    @classmethod
    def of_steps(cls, steps: Float[Tensor, "step block side side"], is_butterfly: bool) -> "Turn":
        """Return the rotation with these blocks."""
        one = torch.eye(steps.shape[-1], dtype=steps.dtype, device=steps.device)
        return cls(tuple(steps - one), is_butterfly)

    def to(self, dtype: torch.dtype) -> "Turn":
        """Return the rotation in numbers of ``dtype``."""
        return replace(self, steps=tuple(step.to(dtype) for step in self.steps))

    def change(self, values: Float[Tensor, "... channel"]) -> Float[Tensor, "... channel"]:
        """Return ``values`` after all steps, less themselves."""
        return self._change(values, tuple(enumerate(self.steps)))

    def change_back(self, values: Float[Tensor, "... channel"]) -> Float[Tensor, "... channel"]:
        """Return ``values`` before all steps, less themselves."""
        return self._change(values, [(at, step.mT) for at, step in enumerate(self.steps)][::-1])

    def _change(
        self,
        values: Float[Tensor, "... channel"],
        steps: Sequence[tuple[int, Float[Tensor, "block side side"]]],
    ) -> Float[Tensor, "... channel"]:
        total: Float[Tensor, "... channel"] | None = None
        for number, blocks in steps:
            half = 2**number * (blocks.shape[-1] // 2)
            moved = self._step(values if total is None else values + total, blocks, half)
            total = moved if total is None else total + moved
        return torch.zeros_like(values) if total is None else total

    def _step(
        self,
        values: Float[Tensor, "... channel"],
        blocks: Float[Tensor, "block side side"],
        half: int,
    ) -> Float[Tensor, "... channel"]:
        if self.is_butterfly:
            values = values.unflatten(-1, (-1, 2, half)).mT.flatten(-3)
        values = values.unflatten(-1, (-1, blocks.shape[-1]))
        values = torch.einsum("bij,...bj->...bi", blocks, values).flatten(-2)
        if self.is_butterfly:
            values = values.unflatten(-1, (-1, half, 2)).mT.flatten(-3)
        return values


@dataclass(frozen=True, eq=False)
class OutputRotationTerm:
    """The outputs without bias, rotated, less themselves.

    Attributes:
        turn: The rotation.
        gain: By which each output is multiplied after it, less 1; None for nothing.
        module: The layer.
    """

    turn: Turn
    gain: Float[Tensor, " out"] | None
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the rotation changes of ``output``."""
        del x
        bare = without_bias(output, self.module)
        axis = 1 if isinstance(self.module, nn.Conv2d) else -1
        change = self.turn.change(bare.movedim(axis, -1)).movedim(-1, axis)
        if self.gain is None:
            return change
        return change + (bare + change) * along_channels(self.gain, output, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the change of the layer's weight."""
        weight = weight_of(self.module).to(self.turn.steps[0].dtype).flatten(start_dim=1)
        return _gained(self.turn.change(weight.mT).mT, weight, self.gain)


@dataclass(frozen=True, eq=False)
class InputRotationTerm:
    """What the layer makes of its inputs rotated, less what it makes of them.

    Attributes:
        turn: The rotation.
        gain: By which each output is multiplied after it, less 1; None for nothing.
        module: The layer.
    """

    turn: Turn
    gain: Float[Tensor, " out"] | None
    module: nn.Module

    def delta(
        self, x: Float[Tensor, "lane ..."], output: Float[Tensor, "lane ..."]
    ) -> Float[Tensor, "lane ..."]:
        """Return what the rotation of ``x`` changes of the output."""
        axis = 1 if isinstance(self.module, nn.Conv2d) else -1
        change = self.turn.change(x.movedim(axis, -1)).movedim(-1, axis)
        made = linear_map(change, weight_of(self.module), self.module)
        if self.gain is None:
            return made
        bare = without_bias(output, self.module)
        return made + (bare + made) * along_channels(self.gain, output, self.module)

    def matrix(self) -> Float[Tensor, "out in_kernel"]:
        """Return the change of the layer's weight."""
        weight = weight_of(self.module).to(self.turn.steps[0].dtype).flatten(start_dim=1)
        return _gained(self.turn.change_back(weight), weight, self.gain)


def _gained(
    change: Float[Tensor, "out in_kernel"],
    weight: Float[Tensor, "out in_kernel"],
    gain: Float[Tensor, " out"] | None,
) -> Float[Tensor, "out in_kernel"]:
    return change if gain is None else change + (weight + change) * gain[:, None]


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
