"""A pipeline of Stable Diffusion 1.5's exact shape with random weights, and LoRAs for it.

Speed, memory and FLOPs do not depend on what weights are worth, so no download is needed.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from oracles.tiny_tokenizer import write_tokenizer
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NOUNS = ("cat", "dog", "bird", "book", "fox", "man", "garden", "forest")
"""One subject per concept; each is one token of the test tokenizer."""


def unet() -> UNet2DConditionModel:
    """Return the UNet of Stable Diffusion 1.5, 859.5 M parameters."""
    return UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
    )


def pipeline(folder: Path) -> StableDiffusionPipeline:
    """Return the whole pipeline with random weights; ``folder`` gets its tokenizer."""
    torch.manual_seed(0)
    write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def write_loras(model: nn.Module, folder: Path, *, count: int, rank: int = 8) -> list[Path]:
    """Write ``count`` random attention-only LoRAs for the UNet ``model``."""
    paths: list[Path] = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        tensors: dict[str, torch.Tensor] = {}
        for name, module in model.named_modules():
            if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
                out_features, in_features = module.weight.shape
                down = torch.randn(rank, in_features, generator=generator) / in_features**0.5
                up = torch.randn(out_features, rank, generator=generator) * 0.02
                tensors[f"unet.{name}.lora_A.weight"] = down
                tensors[f"unet.{name}.lora_B.weight"] = up
        paths.append(folder / f"lora_{index}.safetensors")
        save_file(tensors, paths[-1])
    return paths
