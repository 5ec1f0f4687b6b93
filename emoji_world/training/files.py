"""What training stages hand each other in files: pools of scenes, and the base model."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import StableDiffusionPipeline

from emoji_world.training.parts import new_scheduler
from emoji_world.training.pools import Pool


def store_pool(pool: Pool, path: Path) -> None:
    """Write a pool, in one move."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{field.name: getattr(pool, field.name) for field in fields(Pool)})
    partial.replace(path)


def load_pool(path: Path) -> Pool:
    """Return the pool that ``store_pool`` wrote."""
    with np.load(path) as archive:
        return Pool(**{name: archive[name] for name in archive.files})


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
