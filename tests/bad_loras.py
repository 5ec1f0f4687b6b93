"""LoRA files that must be refused, built in code: every class of fault in every format.

Each is a name, the file's bytes and words that its refusal must hold.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from bad_file import BadFile
from bad_headers import headers, other_formats
from input_kit import safetensors_bytes

DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT = "lora_unet_" + DOTTED.replace(".", "_")
OLD = DOTTED.replace("to_k", "processor.to_k_lora")

NAMES: Mapping[str, tuple[str, str, str]] = {
    "kohya": (f"{FLAT}.lora_down.weight", f"{FLAT}.lora_up.weight", f"{FLAT}.alpha"),
    "peft": (
        f"unet.{DOTTED}.lora_A.weight",
        f"unet.{DOTTED}.lora_B.weight",
        f"unet.{DOTTED}.alpha",
    ),
    "bare": (f"{DOTTED}.lora_A.weight", f"{DOTTED}.lora_B.weight", f"{DOTTED}.alpha"),
    "diffusers": (f"unet.{OLD}.down.weight", f"unet.{OLD}.up.weight", f"unet.{OLD}.alpha"),
}
"""Down, up and alpha of one layer, by format."""


def ones(*shape: int, dtype: str = "f2") -> np.ndarray:
    return np.ones(shape, dtype)


def good(format_: str = "kohya") -> dict[str, np.ndarray]:
    down, up, alpha = NAMES[format_]
    return {down: ones(4, 96), up: ones(8, 4), alpha: ones(dtype="f4")}


def wrong_tensors() -> Iterator[BadFile]:
    """Every fault of names, shapes, dtypes and values, in every format."""
    spoilt = ones(4, 96, dtype="f4")
    spoilt[3, 95] = np.nan
    for format_, (down, up, alpha) in NAMES.items():
        faults: dict[str, tuple[dict[str, Any], str]] = {
            "no-up": ({up: None}, "has down but no up weights"),
            "no-down": ({down: None}, "has up but no down weights"),
            "only-alpha": ({up: None, down: None}, "alpha"),
            "rank": ({up: ones(8, 3)}, "rank 4 in its down and 3 in its up"),
            "flat-up": ({up: ones(8)}, "both have two dimensions"),
            "cube": ({up: ones(8, 4, 1), down: ones(4, 96, 1)}, "both have two dimensions"),
            "scalar": ({up: ones()}, "both have two dimensions"),
            "rank-0": ({up: ones(8, 0), down: ones(0, 96)}, "none of them 0"),
            "wide-up": ({up: ones(8, 4, 3, 3), down: ones(4, 96, 3, 3)}, "kernel must be 1x1"),
            "i8": (
                {down: ones(4, 96, dtype="i1")},
                "is I8; floating-point numbers of 8 to 64 bits are read",
            ),
            "nan": ({up: np.full((8, 4), np.nan, "f2")}, "not finite"),
            "last-nan": ({down: spoilt}, "not finite"),
            "infinity": ({down: np.full((4, 96), np.inf, "f4")}, "not finite"),
            "minus-infinity": ({up: np.full((8, 4), -np.inf, "f4")}, "not finite"),
            "alpha-nan": ({alpha: np.array(np.nan, "f4")}, "not finite"),
            "alphas": ({alpha: ones(3, dtype="f4")}, "an alpha of shape [3]"),
            "stranger": ({"mystery": ones(3)}, "1 of 4 tensors that are no part of a LoRA"),
            "newline": ({f"{up}\n": ones(8, 4)}, "longer than 500 characters or not plain text"),
            "long": ({f"{up}{'x' * 500}": ones(8, 4)}, "longer than 500 characters"),
        }
        for fault, (changes, words) in faults.items():
            tensors = {k: v for k, v in (good(format_) | changes).items() if v is not None}
            yield BadFile(f"{format_}-{fault}", safetensors_bytes(tensors), words)


OTHER_KINDS: Mapping[str, str] = {
    f"{FLAT}.oft_diag": "no part of a LoRA",
    f"{FLAT}.on_input": "is an IA3",
    f"unet.{DOTTED}.ia3_l": "is an IA3",
    f"unet.{DOTTED}.vera_lambda_b": "is a VeRA",
    f"unet.{DOTTED}.lora_embedding_A": "also trains the words",
    f"unet.{DOTTED}.modules_to_save.weight": "also holds whole trained layers",
    "lora_te2_transformer_resblocks_0_attn_in_proj.lora_down.weight": "as OpenCLIP does",
    f"unet.{DOTTED}.weight.absmax": "is quantised",
    "clip_g": "or both clip_l and clip_g (SDXL)",
    "bundle_emb.cat.t5": "of bundled embeddings bundle_emb.NAME.emb_params",
    "model.diffusion_model.input_blocks.0.0.weight": "is a full checkpoint",
    "first_stage_model.encoder.conv_in.weight": "is a full checkpoint",
    "cond_stage_model.transformer.weight": "is a full checkpoint",
    "conditioner.embedders.0.weight": "is a full checkpoint",
    "conv_in.weight": "is a whole UNet",
    "unet.down_blocks.0.resnets.0.conv1.weight": "is a whole UNet",
    "double_blocks.0.img_attn.qkv.weight": "is a whole diffusion transformer",
    "model.diffusion_model.joint_blocks.0.x.weight": "is a full checkpoint",
    "transformer_blocks.0.attn.to_q.weight": "is a whole diffusion transformer",
    "text_model.embeddings.token_embedding.weight": "is a whole text encoder or VAE",
    "decoder.conv_in.weight": "is a whole text encoder or VAE",
    "controlnet_cond_embedding.conv_in.weight": "is a ControlNet",
    "control_model.input_hint_block.0.weight": "is a ControlNet",
    "lllite_unet_x.down.0.weight": "is a ControlNet",
    "ip_adapter.1.to_k_ip.weight": "is an IP-Adapter",
    "image_proj.proj.weight": "is an IP-Adapter",
    "adapter.body.0.resnets.0.block1.weight": "is a T2I-Adapter",
    "down_blocks.0.motion_modules.0.proj_in.weight": "is an AnimateDiff motion module",
    "hypernetwork.weight": "is a hypernetwork",
}
"""A tensor that tells of another kind of file, and what is said of it."""


def other_kinds() -> Iterator[BadFile]:
    """Other adapters and whole models, each alone and beside a good LoRA layer."""
    for number, (name, words) in enumerate(OTHER_KINDS.items()):
        beside = good() if number % 2 else {}
        yield BadFile(f"kind-{number}", safetensors_bytes(beside | {name: ones(2, 2)}), words)


def mixtures() -> Iterator[BadFile]:
    """Good layers that don't go together."""
    other = FLAT.replace("attentions_0", "attentions_1")
    wide = {f"{other}.lora_down.weight": ones(4, 2048), f"{other}.lora_up.weight": ones(8, 4)}
    yield BadFile("two-formats", safetensors_bytes(good() | good("peft")), "holds one layer twice")
    yield BadFile(
        "three-formats",
        safetensors_bytes(good() | good("bare") | good("diffusers")),
        "one layer twice",
    )
    yield BadFile("two-widths", safetensors_bytes(good() | wide), "widths 96 and 2048")
    twice = {f"base_model.model.{k}": v for k, v in good("bare").items()}
    yield BadFile("layer-twice", safetensors_bytes(good("bare") | twice), "holds one layer twice")
    named = {k.replace(".weight", ".default.weight"): v for k, v in good("peft").items()}
    yield BadFile("part-twice", safetensors_bytes(good("peft") | named), "twice")
    stray = good() | {"lora_unet_other.alpha": ones(dtype="f4")}
    yield BadFile("stray-alpha", safetensors_bytes(stray), "has alpha but no weights")


def bad_files() -> tuple[BadFile, ...]:
    """Return all of them; their names differ."""
    return (
        *wrong_tensors(),
        *other_kinds(),
        *mixtures(),
        *headers(),
        *other_formats(safetensors_bytes(good())),
    )
