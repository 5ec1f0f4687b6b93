"""Second moments of a layer's inputs: all that gradient fusion needs to know of them.

The published code keeps every input of every layer. The minimum depends on C_i = X_i X_i^T alone,
and of that on its sum over concepts and on down_i C_i, so that memory depends on the layer's width
and not on how many inputs were seen.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Moments:
    """Moments of one layer, added up input by input in float64.

    Args:
        downs: Each ingredient's factor from the input; None for one that leaves the layer alone.
        ups: Each ingredient's factor to the output, likewise.
        width: Inputs of the layer.
    """

    def __init__(
        self,
        downs: Sequence[Float[Tensor, "_ in"] | None],
        ups: Sequence[Float[Tensor, "out _"] | None],
        width: int,
        device: torch.device,
    ) -> None:
        nothing = torch.zeros(0, width, dtype=torch.float64, device=device)
        self.downs = [nothing if down is None else down.to(device) for down in downs]
        self.ups = [None if up is None else up.to(device) for up in ups]
        self.total = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.projected = [torch.zeros_like(down) for down in self.downs]

    def add(self, ingredient: int, inputs: Float[Tensor, "*sample in"]) -> None:
        """Take inputs that the layer sees while it shows one ingredient's concept."""
        x: Float[Tensor, "sample in"] = inputs.detach().flatten(end_dim=-2).double()
        self.total += x.mT @ x
        self.projected[ingredient] += (x @ self.downs[ingredient].mT).mT @ x


def unfolded(
    module: nn.Module, x: Float[Tensor, "lane channel height width"]
) -> Float[Tensor, "lane position window"]:
    """Return what a convolution sees at each position: to it, it is a linear layer."""
    conv: Any = module
    windows = functional.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    return windows.mT


@contextmanager
def recording(
    component: nn.Module, moments: Mapping[str, Moments], ingredient: int
) -> Generator[None]:
    """Add to ``moments`` (by layer name) what the layers see inside the block."""

    def hook(layer: Moments) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            x: Float[Tensor, "lane ..."] = args[0]
            layer.add(ingredient, unfolded(module, x) if isinstance(module, nn.Conv2d) else x)

        return record

    handles = [
        component.get_submodule(name).register_forward_pre_hook(hook(layer))
        for name, layer in moments.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
