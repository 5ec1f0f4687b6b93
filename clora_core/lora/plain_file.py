"""A plain LoRA as a file, in the spelling of peft or of kohya, which other tools load.

Readers of peft's spelling take one rank for a whole component and scale layers of another rank by
their ratio, so all layers of a component are written with the largest rank, filled up with zeros,
and scales are in the factors. kohya's files have an alpha for each layer.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.lora.factors import LoraFactors

Naming = Literal["peft", "kohya"]

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Ends of peft's names."""


def plain_tensors(
    lora: LoraFactors, *, naming: Naming, dtype: torch.dtype, is_xl: bool
) -> dict[str, Float[Tensor, "..."]]:
    """Return the tensors of a file, by name.

    Args:
        lora: All of it products of two factors.
        naming: Whose names the tensors get.
        dtype: Of the tensors.
        is_xl: The base model is Stable Diffusion XL, where kohya numbers the text encoders.
    """
    named = _peft_tensors(lora) if naming == "peft" else _kohya_tensors(lora, is_xl=is_xl)
    return {
        # A half's alpha would be rounded, and every layer's strength with it.
        name: tensor.to("cpu", torch.float32 if tensor.ndim == 0 else dtype).contiguous()
        for name, tensor in named.items()
    }


def plain_metadata(lora: LoraFactors, naming: Naming) -> dict[str, str]:
    """Return what readers look for in the metadata of a file with these names."""
    ranks = [factor.rank for factor in lora.as_factors().values()]
    if naming == "peft":
        return {"format": "pt"}
    highest = str(max(ranks, default=0))
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": highest,
        "ss_network_alpha": highest,
    }


def not_finite(tensors: Mapping[str, Float[Tensor, "..."]]) -> list[str]:
    """Return the names of tensors that hold values that are not finite, sorted."""
    return sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))


def tensors_digest(tensors: Mapping[str, Float[Tensor, "..."]]) -> str:
    """Return the sha256 (hex) of all tensors with their names, by which damage is found."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _peft_tensors(lora: LoraFactors) -> dict[str, Float[Tensor, "..."]]:
    tensors: dict[str, Float[Tensor, "out ..."]] = {}
    layers = lora.as_factors()
    ranks: dict[str, int] = {}
    for (component, _), factor in layers.items():
        ranks[component] = max(factor.rank, ranks.get(component, 0))
    for (component, name), factor in layers.items():
        tensors[f"{component}.{name}{DOWN}"] = _filled(factor.down, 0, ranks[component])
        up = factor.up * factor.scale
        tensors[f"{component}.{name}{UP}"] = _filled(up, 1, ranks[component])
    return tensors


def _kohya_tensors(lora: LoraFactors, *, is_xl: bool) -> dict[str, Float[Tensor, "..."]]:
    towers = {"text_encoder": "lora_te1" if is_xl else "lora_te", "text_encoder_2": "lora_te2"}
    prefixes = {"unet": "lora_unet", **towers}
    tensors: dict[str, Float[Tensor, "out ..."]] = {}
    for (component, name), factor in lora.as_factors().items():
        stem = f"{prefixes[component]}_{_with_text_model(component, name).replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = factor.down
        tensors[f"{stem}.lora_up.weight"] = factor.up
        tensors[f"{stem}.alpha"] = torch.tensor(factor.scale * factor.rank)
    return tensors


def _with_text_model(component: str, name: str) -> str:
    """Return a layer's name with the level that trainers write, whether or not the model has it."""
    if component == "unet" or name.startswith(("text_model.", "text_model_", "text_projection")):
        return name
    return f"text_model.{name}"


def _filled(factor: Float[Tensor, "..."], axis: int, rank: int) -> Float[Tensor, "..."]:
    shape = list(factor.shape)
    shape[axis] = rank - shape[axis]
    return torch.cat([factor, factor.new_zeros(shape)], dim=axis)
