"""Small random models in Stable Diffusion's and SDXL's formats, built on disk in a second.

The shapes are those of the real models in small: the UNet has cross-attention at several
resolutions, and that of the maps is not that of the latents, so that a pass may stop before the
last blocks. Query and key weights are larger than by default, else all attention maps would be
nearly constant and no test of them would prove anything.

Everything is seeded: the same call writes the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from oracles.tiny_tokenizer import write_tokenizer
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

TEXT_WIDTH = 32


def build_tiny_sd(folder: Path, *, seed: int = 0) -> Path:
    """Write a Stable Diffusion 1.5 in small: 256 px, latents 32x32, maps 16x16, mid block 8x8."""
    write_tokenizer(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2, 2),  # as in Stable Diffusion 1.5, the number of heads
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
    )
    pipeline = StableDiffusionPipeline(
        vae=_tiny_vae(sample_size_px=256, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**_SCHEDULE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipeline, folder)


def build_tiny_sdxl(folder: Path, *, seed: int = 1) -> Path:
    """Write an SDXL in small: 512 px, latents 64x64, maps 16x16 at the coarsest level."""
    write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2", pad_token="!")  # noqa: S106
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer_2 = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    torch.manual_seed(seed)
    time_dim = 8
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(16, 16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 1, 2),
        norm_num_groups=8,
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=time_dim,
        projection_class_embeddings_input_dim=6 * time_dim + TEXT_WIDTH,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_tiny_vae(sample_size_px=512, scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer_2, hidden_act="gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_SCHEDULE, timestep_spacing="leading"),
        add_watermarker=False,
    )
    # The real file carries these two for solvers built from its config; Euler itself ignores them.
    pipeline.scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False)
    return _save(pipeline, folder)


_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def _save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    _sharpen_attention(pipeline.unet)
    _spread_text(pipeline.text_encoder)
    if getattr(pipeline, "text_encoder_2", None) is not None:
        _spread_text(pipeline.text_encoder_2)
    pipeline.save_pretrained(folder)
    return folder


def _sharpen_attention(unet: nn.Module) -> None:
    """Make cross-attention depend on place and word, so that its maps have peaks."""
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter.mul_(2.5)


def _spread_text(text_encoder: nn.Module) -> None:
    """Tell tokens and places apart as a trained encoder does; the default is nearly uniform."""
    with torch.no_grad():
        for name, parameter in text_encoder.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.normal_(std=0.5)
            elif name.endswith("position_embedding.weight"):
                parameter.normal_(std=0.2)
            elif name.endswith(("_proj.weight", "fc1.weight", "fc2.weight")):
                parameter.normal_(std=0.15)


def _tiny_vae(*, sample_size_px: int, scaling_factor: float, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=sample_size_px,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        **config,
    )


def _text_config(tokenizer: CLIPTokenizer, **config: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **config,
    )
