"""Random LoRA files of every format that users have, for the tiny models.

Everything is seeded: the same call writes the same bytes. Each file is one that
``pipeline.load_lora_weights`` of diffusers takes, except ``bare_peft``, which it silently drops.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

ATTENTION_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass(frozen=True, kw_only=True)
class TinyLoras:
    """Paths of the LoRA files of one tiny model."""

    by_name: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        return self.by_name[name]


def build_tiny_loras(model_dir: Path, folder: Path) -> TinyLoras:
    """Write one LoRA file of each format that users have, for the model of ``build_tiny_sd``.

    ``peft_attention`` and ``peft_attention_b`` (rank 4), ``peft_text`` (rank 8, with text
    encoder), ``kohya_linear`` (alpha is not the rank), ``kohya_locon`` (3x3 and 1x1 convolutions
    too), ``kohya_text`` (with text encoder), ``kohya_text_only``, ``diffusers_old``, ``style``
    and ``bare_peft`` (keys without ``unet.``).
    """
    folder.mkdir(parents=True, exist_ok=True)

    def unet() -> nn.Module:
        return UNet2DConditionModel.from_pretrained(model_dir / "unet")

    def text_encoder() -> nn.Module:
        return CLIPTextModel.from_pretrained(model_dir / "text_encoder")

    def peft_unet(*, rank: int, seed: int, targets: Any = None) -> dict[str, Tensor]:
        return _peft_weights(unet(), targets or ATTENTION_TARGETS, rank=rank, seed=seed)

    files: dict[str, dict[str, Tensor]] = {
        "peft_attention": _prefixed("unet", peft_unet(rank=4, seed=11)),
        "peft_attention_b": _prefixed("unet", peft_unet(rank=4, seed=12)),
        "peft_text": {
            **_prefixed("unet", peft_unet(rank=8, seed=13)),
            **_prefixed(
                "text_encoder", _peft_weights(text_encoder(), TEXT_TARGETS, rank=8, seed=14)
            ),
        },
        "kohya_linear": _kohya_weights(
            unet(), "lora_unet", rank=4, alpha=2.0, seed=15, wants=_is_in_transformer
        ),
        "kohya_locon": _kohya_weights(
            unet(), "lora_unet", rank=4, alpha=1.0, seed=16, wants=_is_in_block
        ),
        "kohya_text": {
            **_kohya_weights(
                unet(), "lora_unet", rank=4, alpha=8.0, seed=17, wants=_is_in_transformer
            ),
            **_kohya_weights(
                text_encoder(), "lora_te", rank=4, alpha=2.0, seed=18, wants=_is_text_linear
            ),
        },
        "kohya_text_only": _kohya_weights(
            text_encoder(), "lora_te", rank=4, alpha=4.0, seed=19, wants=_is_text_linear
        ),
        "diffusers_old": _old_diffusers_names(peft_unet(rank=4, seed=20)),
        "style": _prefixed("unet", peft_unet(rank=4, seed=21)),
        "bare_peft": peft_unet(rank=4, seed=22),
    }
    return _write_all(files, folder)


def build_tiny_sdxl_loras(model_dir: Path, folder: Path) -> TinyLoras:
    """Write LoRA files for the model of ``build_tiny_sdxl``.

    ``peft_attention`` (rank 4), ``peft_text`` (rank 8, both text encoders), ``kohya_text`` (both
    text encoders, alpha is not the rank) and ``style``.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def unet() -> nn.Module:
        return UNet2DConditionModel.from_pretrained(model_dir / "unet")

    encoders = {
        "text_encoder": CLIPTextModel.from_pretrained(model_dir / "text_encoder"),
        "text_encoder_2": CLIPTextModelWithProjection.from_pretrained(model_dir / "text_encoder_2"),
    }
    files = {
        "peft_attention": _prefixed(
            "unet", _peft_weights(unet(), ATTENTION_TARGETS, rank=4, seed=31)
        ),
        "style": _prefixed("unet", _peft_weights(unet(), ATTENTION_TARGETS, rank=4, seed=32)),
        "kohya_text": _kohya_weights(
            unet(), "lora_unet", rank=4, alpha=2.0, seed=33, wants=_is_in_transformer
        )
        | _kohya_weights(
            encoders["text_encoder"], "lora_te1", rank=4, alpha=2.0, seed=34, wants=_is_text_linear
        )
        | _kohya_weights(
            encoders["text_encoder_2"],
            "lora_te2",
            rank=4,
            alpha=2.0,
            seed=35,
            wants=_is_text_linear,
        ),
        "peft_text": _prefixed("unet", _peft_weights(unet(), ATTENTION_TARGETS, rank=8, seed=36)),
    }
    for seed, (name, encoder) in enumerate(encoders.items(), start=37):
        weights = _peft_weights(encoder, TEXT_TARGETS, rank=8, seed=seed)
        files["peft_text"] |= _prefixed(name, weights)
    return _write_all(files, folder)


def _write_all(files: Mapping[str, dict[str, Tensor]], folder: Path) -> TinyLoras:
    paths: dict[str, Path] = {}
    for name, weights in files.items():
        paths[name] = folder / f"{name}.safetensors"
        tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
        save_file(tensors, paths[name], metadata={"format": "pt"})
    return TinyLoras(by_name=paths)


def _peft_weights(
    model: nn.Module, targets: list[str], *, rank: int, seed: int
) -> dict[str, Tensor]:
    """Return a random LoRA's weights under peft's own names, alpha equal to the rank."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    inject_adapter_in_model(config, model)
    weights = get_peft_model_state_dict(model, adapter_name="default")
    return {
        name: _factor(tensor.shape, f"{name}/{seed}") for name, tensor in sorted(weights.items())
    }


def _kohya_weights(
    model: nn.Module,
    prefix: str,
    *,
    rank: int,
    alpha: float,
    seed: int,
    wants: Callable[[str, nn.Module], bool],
) -> dict[str, Tensor]:
    """Return a random LoRA's weights as kohya's trainer names them."""
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or not wants(name, module):
            continue
        weight = module.weight
        down = (rank, *weight.shape[1:])
        up = (weight.shape[0], rank) + (1,) * (weight.dim() - 2)
        key = f"{prefix}_{_kohya_name(name)}"
        weights[f"{key}.lora_down.weight"] = _factor(down, f"{key}/down/{seed}")
        weights[f"{key}.lora_up.weight"] = _factor(up, f"{key}/up/{seed}")
        weights[f"{key}.alpha"] = torch.tensor(alpha)
    return weights


def _kohya_name(name: str) -> str:
    # Newer transformers drop a level of the text encoder that files in the world still name.
    in_text_encoder = name.startswith("encoder.layers")
    return ("text_model." + name if in_text_encoder else name).replace(".", "_")


def _is_in_transformer(name: str, _: nn.Module) -> bool:
    return "attentions" in name


def _is_in_block(name: str, module: nn.Module) -> bool:
    blocks = name.startswith(("down_blocks", "mid_block", "up_blocks"))
    return blocks and (isinstance(module, nn.Conv2d) or "attentions" in name or "time_emb" in name)


def _is_text_linear(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and "encoder.layers" in name


def _prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    def named(name: str) -> str:
        return f"text_model.{name}" if name.startswith("encoder.layers") else name

    return {f"{prefix}.{named(name)}": tensor for name, tensor in weights.items()}


def _old_diffusers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``attn1.to_q.lora_A`` to ``attn1.processor.to_q_lora.down``."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        module, factor, _ = name.rsplit(".", 2)
        attention, _, projection = module.partition(".to_")
        projection = projection.removesuffix(".0")
        side = {"lora_A": "down", "lora_B": "up"}[factor]
        renamed[f"unet.{attention}.processor.to_{projection}_lora.{side}.weight"] = tensor
    return renamed


def _factor(shape: torch.Size | tuple[int, ...], label: str) -> Tensor:
    """Return a seeded factor; two of them make a delta about a third as large as the weight."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
    generator = torch.Generator().manual_seed(seed)
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape, generator=generator) * (0.6 / fan_in**0.5)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a safetensors file's tensors."""
    return load_file(path)
