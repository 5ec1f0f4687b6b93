"""What training writes in files of its own making: the base model."""

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from emoji_world.training.parts import new_scheduler


def save_base(folder: Path, *, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> None:
    """Write the base model in float16; the models themselves stay in float32."""
    for part in (vae, unet):
        # diffusers would write the folder that they were read from.
        part.register_to_config(_name_or_path="emoji_world")
    pipeline: Any = StableDiffusionPipeline
    pipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    for part in (vae, text_encoder, unet):
        part.float()
