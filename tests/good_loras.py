"""Good LoRA files: one content in every format, so that they can be told to be the same.

A content is the layers of a part of the model with random factors; a format is how a tool names
and shapes them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from input_kit import adapter_config
from oracles.stability_names import stability_names
from safetensors.torch import save_file
from torch import Tensor, nn

ALPHA_OVER_RANK = 0.5
"""A power of two, so that folding it into a factor is exact."""


STABILITY = ("kohya stability", "comfyui", "comfyui peft")
"""Formats that name the UNet's layers as Stability does."""


@dataclass(frozen=True)
class GoodFile:
    """One file: which layers (``part``) at which rank, written in ``format``."""

    format: str
    part: str
    rank: int
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        return f"{self.format}-{self.part}-r{self.rank}-{str(self.dtype)[6:]}"


def _files() -> tuple[GoodFile, ...]:
    anywhere = ("kohya", "diffusers", "peft", "peft default", "bare", "wrapped")
    found = [GoodFile(f, "attention", r) for f in (*anywhere, "diffusers old") for r in (1, 4, 16)]
    other = ("unet.unet", "lycoris", "named adapter", "wrapped pipeline", *STABILITY)
    found += [GoodFile(f, "attention", 4) for f in other]
    found += [GoodFile(f, "transformer", r) for f in ("kohya", "peft", "bare") for r in (2, 8)]
    found += [GoodFile(f, "all", r) for f in ("kohya", "peft", "wrapped") for r in (1, 3, 8)]
    found += [GoodFile(f, "text", r) for f in ("kohya", "kohya bare text", "peft") for r in (2, 4)]
    found += [GoodFile(f, "only text", 4) for f in ("kohya", "kohya bare text", "peft", "lycoris")]
    found += [GoodFile(f, "text", 4) for f in ("diffusers old", "wrapped pipeline", "comfyui")]
    found.append(GoodFile("kohya stability", "all", 3))
    for dtype in (torch.float16, torch.bfloat16):
        found += [GoodFile(f, "attention", 4, dtype) for f in ("kohya", "peft")]
    return tuple(found)


GOOD_FILES = _files()


def wanted_layers(components: Mapping[str, nn.Module], part: str) -> dict[str, nn.Module]:
    """Return the layers of ``part`` by ``component.layer``."""
    found: dict[str, nn.Module] = {}
    for component in ("unet", "text_encoder"):
        for name, module in components[component].named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and _is_wanted(component, name, part):
                found[f"{component}.{name}"] = module
    return found


def _is_wanted(component: str, name: str, part: str) -> bool:
    if component == "text_encoder":
        return "text" in part and "self_attn" in name
    in_attention = name.rpartition("to_")[0].endswith(("attn1.", "attn2."))
    return {
        "attention": in_attention,
        "text": in_attention,
        "transformer": "attentions" in name,
        "all": name.startswith(("down_blocks", "mid_block", "up_blocks")),
        "only text": False,
    }[part]


def has_alphas(file: GoodFile) -> bool:
    """Return whether the file's strength stands in it as tensors."""
    return file.format.startswith("kohya") or file.format == "lycoris"


def tensors(file: GoodFile, components: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the file's tensors; the same content (part, rank, dtype) in every format."""
    found: dict[str, Tensor] = {}
    unet = components["unet"]
    spelling = stability_names(unet) if file.format in STABILITY else {}
    for layer, module in wanted_layers(components, file.part).items():
        weight = module.weight
        down = _factor((file.rank, *weight.shape[1:]), f"{layer}/down/{file.rank}")
        up = _factor((weight.shape[0], file.rank, *(1,) * (weight.ndim - 2)), f"{layer}/up")
        component, name = layer.split(".", 1)
        if component == "unet":
            name = spelling.get(name, name)
        down_name, up_name, alpha_name = _names(file.format, component, name)
        found[down_name], found[up_name] = down.to(file.dtype), up.to(file.dtype)
        if alpha_name is not None:
            found[alpha_name] = torch.tensor(ALPHA_OVER_RANK * file.rank)
        else:  # these formats' alpha is the rank
            found[up_name] = found[up_name] * ALPHA_OVER_RANK
    return {name: tensor.contiguous() for name, tensor in found.items()}


def write_good(folder: Path, file: GoodFile, components: Mapping[str, nn.Module]) -> Path:
    """Write the file into ``folder``; peft's own goes with its settings into a new folder."""
    path = folder / f"{file}.safetensors"
    if file.format.startswith("wrapped"):
        path = folder / str(file) / "adapter_model.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.with_name("adapter_config.json").write_text(adapter_config(file.rank, file.rank))
    save_file(tensors(file, components), path)
    return path


def _names(format_: str, component: str, layer: str) -> tuple[str, str, str | None]:
    dotted = layer
    if component == "text_encoder" and layer.startswith("encoder.") and "bare" not in format_:
        dotted = f"text_model.{layer}"  # as trainers write it
    if format_.startswith("kohya") or format_ == "lycoris":
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[component]
        flat = ("lycoris_" if format_ == "lycoris" else prefix) + dotted.replace(".", "_")
        return f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", f"{flat}.alpha"
    if format_ == "diffusers old":
        attention, _, projection = dotted.partition(".to_")
        old = f"unet.{attention}.processor.to_{projection.removesuffix('.0')}_lora"
        if component == "text_encoder":
            attention, _, projection = dotted.removesuffix("_proj").rpartition(".")
            old = f"text_encoder.{attention}.to_{projection}_lora"
        return f"{old}.down.weight", f"{old}.up.weight", None
    if format_.startswith("comfyui"):
        whole = {"unet": "diffusion_model", "text_encoder": "text_encoders.clip_l.transformer"}
        dotted = f"{whole[component]}.{dotted}"
    stem, ending = {
        "comfyui": (dotted, ("lora_down", "lora_up")),
        "comfyui peft": (dotted, ("lora_A", "lora_B")),
        "unet.unet": (f"unet.unet.{dotted}.lora", ("down", "up")),
        "named adapter": (f"{component}.{dotted}", ("lora_A.my_style", "lora_B.my_style")),
        "wrapped pipeline": (f"base_model.model.{component}.{dotted}", ("lora_A", "lora_B")),
        "diffusers": (f"{component}.{dotted}.lora", ("down", "up")),
        "peft": (f"{component}.{dotted}", ("lora_A", "lora_B")),
        "peft default": (f"{component}.{dotted}", ("lora_A.default", "lora_B.default")),
        "bare": (layer, ("lora_A", "lora_B")),
        "wrapped": (f"base_model.model.{layer}", ("lora_A.default_0", "lora_B.default_0")),
    }[format_]
    return f"{stem}.{ending[0]}.weight", f"{stem}.{ending[1]}.weight", None


def _factor(shape: tuple[int, ...], label: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return random * (0.5 / torch.Size(shape[1:]).numel() ** 0.5)
