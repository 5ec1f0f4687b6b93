"""Runs the trainers' libraries in float64, and sees which weight a layer of theirs uses.

LyCORIS and peft compute some steps in float32, whatever their parameters are. The oracle wants
their code without that rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adapters.case import Effect, Layer


@contextmanager
def in_float64() -> Iterator[None]:
    """Let new tensors be float64, and ``Tensor.float`` keep them so."""
    default, to_float = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = to_float
        torch.set_default_dtype(default)


def trained_effect(module: nn.Module, layer: Layer) -> Effect:
    """Return what a LyCORIS module adds to its layer when it is called, as in training.

    Its ``op`` is called with the difference of the weights; that is looked at. Its own merge is
    another formula (LoHa and LoKr scale twice there), and no picture was trained through it.
    """
    seen: dict[str, Any] = {}
    convolve = module.op

    def watched(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight = kwargs.get("weight", args[0] if args else None)
        bias = kwargs.get("bias", args[1] if len(args) > 1 else None)
        seen.update(weight=weight, bias=bias)
        return convolve(x, *args, **kwargs)

    module.op = watched
    module.eval()
    with torch.no_grad():
        module(_input(layer))
    bias = seen["bias"]
    shape = layer.module.weight.shape
    return Effect(seen["weight"].reshape(shape).clone(), None if bias is None else bias.clone())


def _input(layer: Layer) -> Tensor:
    weight = layer.module.weight
    if isinstance(layer.module, nn.Conv2d):
        return torch.ones(1, weight.shape[1], 4, 4, dtype=torch.float64)
    if isinstance(layer.module, nn.GroupNorm):
        return torch.ones(1, weight.shape[0], 2, 2, dtype=torch.float64)
    return torch.ones(1, weight.shape[-1], dtype=torch.float64)
