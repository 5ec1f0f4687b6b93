"""LoRA files as people find them: diffusers, peft and kohya spellings of the same factors."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

FORMATS = ("peft", "diffusers", "kohya")


def export_lora(
    path: Path,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    *,
    file_format: str,
    rank: int,
    alpha: float,
    title: str,
    trigger: str | None,
) -> None:
    """Write a LoRA.

    Args:
        path: The file.
        factors: Layer path (``unet.…`` or ``text_encoder.…``) -> down [rank, in, …] and up
            [out, rank, …], whose product is the whole change of the weight.
        file_format: ``peft`` (lora_A / lora_B), ``diffusers`` (lora.down / lora.up) or ``kohya``
            (lora_unet_… with alpha and training metadata).
        rank: Rank of the factors.
        alpha: Written to kohya files, whose readers scale by alpha / rank; ``up`` is divided by
            that. The other formats mean alpha = rank.
        title: Name of the LoRA, in the metadata.
        trigger: Word that calls it, in the metadata.

    Raises:
        ValueError: The format is none of ``FORMATS``.
    """
    if file_format not in FORMATS:
        raise ValueError(f"file_format must be one of {', '.join(FORMATS)}, got {file_format!r}")
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in factors.items():
        if file_format == "kohya":
            prefix, name = layer.split(".", 1)
            stem = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[prefix] + name.replace(
                ".", "_"
            )
            tensors[f"{stem}.lora_down.weight"] = down
            tensors[f"{stem}.lora_up.weight"] = up * (rank / alpha)
            tensors[f"{stem}.alpha"] = torch.tensor(float(alpha))
        else:
            names = (".lora_A", ".lora_B") if file_format == "peft" else (".lora.down", ".lora.up")
            tensors[f"{layer}{names[0]}.weight"] = down
            tensors[f"{layer}{names[1]}.weight"] = up
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    save_file(half, path, metadata=_metadata(file_format, rank, alpha, title, trigger))


def _metadata(
    file_format: str, rank: int, alpha: float, title: str, trigger: str | None
) -> dict[str, str]:
    if file_format != "kohya":
        return {"format": "pt"}
    metadata = {
        "format": "pt",
        "ss_output_name": title,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": "emoji-world",
        "ss_resolution": "(64, 64)",
    }
    if trigger is not None:
        metadata["ss_tag_frequency"] = json.dumps({"img": {trigger: 1}})
    return metadata
