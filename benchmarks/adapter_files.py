"""Adapters of each kind for all layers of a UNet's blocks, as files with random numbers."""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Parts = Mapping[str, Tensor]

RANK = 16
SHARE = 0.02
"""By which an adapter changes a weight, about."""


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape) / prod(shape[1:]) ** 0.5


def _factors(weight: Tensor) -> Parts:
    one = (1,) * (weight.ndim - 2)
    return {
        "lora_down.weight": _normal(RANK, *weight.shape[1:]),
        "lora_up.weight": SHARE * _normal(len(weight), RANK, *one),
        "alpha": torch.tensor(float(RANK)),
    }


def _tucker(weight: Tensor) -> Parts:
    if weight[0, 0].numel() == 1:
        return _factors(weight)
    return {
        "lora_down.weight": _normal(RANK, weight.shape[1], 1, 1),
        "lora_mid.weight": _normal(RANK, RANK, *weight.shape[2:]),
        "lora_up.weight": SHARE * _normal(len(weight), RANK, 1, 1),
        "alpha": torch.tensor(float(RANK)),
    }


def _hadamard(rank: int) -> Callable[[Tensor], Parts]:
    def parts(weight: Tensor) -> Parts:
        inputs = weight[0].numel()
        return {
            "hada_w1_a": SHARE * torch.randn(len(weight), rank),
            "hada_w1_b": _normal(rank, inputs),
            "hada_w2_a": _normal(len(weight), rank),
            "hada_w2_b": torch.randn(rank, inputs),
            "alpha": torch.tensor(float(rank)),
        }

    return parts


def _kronecker(weight: Tensor) -> Parts:
    outputs, inputs, *kernel = weight.shape
    return {
        "lokr_w1": SHARE * _normal(8, 8),
        "lokr_w2": _normal(outputs // 8, inputs // 8, *kernel),
        "alpha": torch.tensor(1.0),
    }


def _decomposed(axis: int) -> Callable[[Tensor], Parts]:
    def parts(weight: Tensor) -> Parts:
        others = [dim for dim in range(weight.ndim) if dim != axis]
        norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        return {**_factors(weight), "dora_scale": norm * 1.01}

    return parts


def _rotation(weight: Tensor) -> Parts:
    """Of eight blocks."""
    side = len(weight) // 8
    return {"oft_blocks": SHARE * _normal(8, side, side), "alpha": torch.tensor(0.0)}


def _input_rotation(weight: Tensor) -> Parts:
    """Of blocks of 16 channels, as OneTrainer writes them."""
    side = 16
    blocks = weight[0].numel() // side
    return {"oft_R.weight": SHARE * torch.randn(blocks, side * (side - 1) // 2) / side**0.5}


def _butterfly(weight: Tensor) -> Parts:
    """Of three steps."""
    side = len(weight) // 8
    return {"oft_blocks": SHARE * _normal(3, 8, side, side), "alpha": torch.tensor(0.0)}


def _difference(weight: Tensor) -> Parts:
    return {"diff": SHARE * _normal(*weight.shape)}


KINDS: Mapping[str, Callable[[Tensor], Parts]] = {
    f"LoRA, rank {RANK}": _factors,
    f"LoCon with Tucker cores, rank {RANK}": _tucker,
    "LoHa, rank 8": _hadamard(8),
    "LoHa, rank 32": _hadamard(32),
    "LoKr, factor 8": _kronecker,
    f"DoRA, rank {RANK}": _decomposed(0),
    f"DoRA of inputs, rank {RANK}": _decomposed(1),
    "OFT, 8 blocks": _rotation,
    "OFT of inputs, blocks of 16": _input_rotation,
    "BOFT, 3 steps": _butterfly,
    "whole differences": _difference,
}
NORMS = "norms"


def write_adapter(folder: Path, kind: str, unet: nn.Module) -> Path:
    """Write an adapter of ``kind`` for the linear layers and convolutions of all blocks in float16.

    Args:
        folder: For the file.
        kind: Of ``KINDS``, or ``NORMS`` for the scales and shifts of all norms there.
        unet: That it is for.
    """
    torch.manual_seed(0)
    wanted = nn.GroupNorm | nn.LayerNorm if kind == NORMS else nn.Linear | nn.Conv2d
    tensors: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if not (name.startswith(("down", "mid", "up")) and isinstance(module, wanted)):
            continue
        weight = module.weight.detach()
        flat = f"lora_unet_{name.replace('.', '_')}"
        if kind == NORMS:
            parts = {"w_norm": SHARE * torch.randn(len(weight)), "b_norm": torch.zeros(len(weight))}
        else:
            parts = KINDS[kind](weight)
        if "oft_R.weight" in parts:
            flat = f"unet.{name}"
        tensors |= {f"{flat}.{part}": tensor.half() for part, tensor in parts.items()}
    path = folder / f"{kind}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
