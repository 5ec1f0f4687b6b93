"""K-LoRA's choice from dense matrices, carried out by peft's adapters layer by layer."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def attention_projections(unet: Any, *adapters: str) -> dict[str, Any]:
    """Return the projections of all attentions that every one of ``adapters`` changes."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, LoraLayer)
        and name.endswith(PROJECTIONS)
        and ("attn1" in name or "attn2" in name)
        and all(adapter in module.lora_A for adapter in adapters)
    }


def dense_ratios(unet: Any, content: str, style: str) -> dict[str, float]:
    """Return S_content / (gamma S_style) by layer, the adapters' present weights included."""
    layers = attention_projections(unet, content, style)
    ratios: list[float] = []
    sums: dict[str, tuple[float, float]] = {}
    for name, layer in layers.items():
        one, other = (layer.get_delta_weight(adapter).abs() for adapter in (content, style))
        k = min(layer.r[content] * layer.r[style], one.numel())
        sums[name] = (
            float(torch.topk(one.flatten(), k).values.sum()),
            float(torch.topk(other.flatten(), k).values.sum()),
        )
        ratios.append(float(one.sum() / other.sum()))
    mean = sum(ratios) / len(ratios)
    kept = [ratio for ratio in ratios if not ratio >= 3 * mean]
    gamma = sum(kept) / len(kept)
    return {name: one / gamma / other for name, (one, other) in sums.items()}


def choose_layers(unet: Any, content: str, style: str, scale: float) -> None:
    """Leave one of two active adapters active in each attention projection that has both."""
    layers = attention_projections(unet, content, style)
    for name, ratio in dense_ratios(unet, content, style).items():
        layers[name].set_adapter([content if ratio >= scale else style])
