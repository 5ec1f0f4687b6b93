"""One LoRA written as every kind of adapter that can hold its difference exactly."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from adapters.case import Components, Layer
from adapters.spellings import kohya_flat
from safetensors.torch import save_file
from torch import Tensor

from clora_core.lora.factors import LoraFactors

Parts = Mapping[str, Tensor]


def _plain(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
    del weight
    return {"lora_down.weight": down, "lora_up.weight": up}


def _difference(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
    return {"diff": _product(down, up, weight)}


def _kronecker(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
    """Of a matrix of one entry and the whole difference."""
    return {"lokr_w1": torch.ones(1, 1), "lokr_w2": _product(down, up, weight)}


def _hadamard(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
    """Times a matrix of ones, which is of rank 1 and filled up with zeros."""
    del weight
    up, down = up.flatten(start_dim=1), down.flatten(start_dim=1)
    ones_up, ones_down = torch.zeros_like(up), torch.zeros_like(down)
    ones_up[:, 0], ones_down[0] = 1, 1
    return {"hada_w1_a": ones_up, "hada_w1_b": ones_down, "hada_w2_a": up, "hada_w2_b": down}


def _tucker(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
    """With the factor from the input for a core, where a convolution has one."""
    if down.ndim < 4:
        return _plain(down, up, weight)
    one = torch.eye(down.shape[1])[:, :, None, None]
    return {"lora_mid.weight": down, "lora_down.weight": one, "lora_up.weight": up}


def _decomposed(axis: int) -> Callable[[Tensor, Tensor, Tensor], Parts]:
    """With the magnitude that the changed weight has anyway."""

    def parts(down: Tensor, up: Tensor, weight: Tensor) -> Parts:
        changed = weight + _product(down, up, weight)
        others = [dim for dim in range(weight.ndim) if dim != axis]
        norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        return {**_plain(down, up, weight), "dora_scale": norm}

    return parts


KINDS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Parts]] = {
    "LoRA": _plain,
    "difference": _difference,
    "LoKr": _kronecker,
    "LoHa": _hadamard,
    "Tucker": _tucker,
    "DoRA": _decomposed(0),
    "DoRA of inputs": _decomposed(1),
}


def write_same(folder: Path, kind: str, lora: LoraFactors, components: Components) -> Path:
    """Write a LoRA as a file of ``kind``, with kohya's names.

    Args:
        folder: For the file.
        kind: Of ``KINDS``.
        lora: All of its layers have two factors.
        components: Of the base model, a Stable Diffusion 1.x.
    """
    tensors: dict[str, Tensor] = {}
    for (component, name), factor in lora.as_factors().items():
        layer = Layer(component, name, components[component])
        weight = layer.module.weight.detach()
        down, up = factor.down.float(), factor.up.float() * factor.scale
        flat = kohya_flat(layer, "sd15", sgm=False)
        parts = KINDS[kind](down, up, weight)
        tensors |= {f"{flat}.{part}": tensor.contiguous() for part, tensor in parts.items()}
        ranks = [len(parts[part]) for part in ("lora_down.weight", "hada_w2_b") if part in parts]
        tensors |= {f"{flat}.alpha": torch.tensor(float(rank)) for rank in ranks}
    path = folder / f"{kind}.safetensors".replace(" ", "_")
    save_file(tensors, path)
    return path


def _product(down: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    return (up.flatten(start_dim=1) @ down.flatten(start_dim=1)).reshape(weight.shape)
