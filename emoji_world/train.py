"""``python -m emoji_world.train``: make every weight of the embedded world again.

Stages, one after another in one process: vae, base (text encoder and UNet), loras, judge, gates,
which are quick figures of what came out, and dino. More seconds are better weights; a stage with a
checkpoint continues where it was cut off.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoji_world import weights_dir
from emoji_world.composing.atlas import Atlas
from emoji_world.composing.casting import MIXED, cast_scenes
from emoji_world.composing.compose import compose
from emoji_world.scenes import SIDE_PX
from emoji_world.styles import apply_style
from emoji_world.training.parts import new_text_encoder, new_tokenizer, new_unet
from emoji_world.training.stages import (
    Models,
    add_options,
    atlas_of,
    base_stage,
    dino_stage,
    gate_stage,
    judge_stage,
    lora_stage,
    prepare,
    workers_of,
)
from emoji_world.training.vae import train_vae

_AT_ONCE = 1024


def _vae(options: Any, atlas: Atlas) -> Any:
    """Train the autoencoder on square scenes, an eighth of them again in each style."""
    plain = torch.cat(
        [
            compose(cast_scenes(_AT_ONCE, atlas, MIXED, SIDE_PX), atlas).images
            for _ in range(max(1, 2 * options.judge_scenes // _AT_ONCE))
        ]
    )
    some = plain[: len(plain) // 8].cpu().numpy()
    styled = [
        torch.from_numpy(np.stack([apply_style(image, style) for image in some]))
        for style in ("pixel-art", "line-art", "night")
    ]
    vae = train_vae(
        torch.cat([*(images.to(options.device) for images in styled), plain]),
        budget_s=options.vae_s,
        batch=min(256, options.batch),
        device=options.device,
        work=options.work,
    )
    return vae.eval().requires_grad_(False)


def _train(options: Any, workers: Any) -> None:
    tokenizer = new_tokenizer(options.out / "base" / "tokenizer")
    atlas = atlas_of(options, workers)
    vae = _vae(options, atlas)
    unet: Any = new_unet()
    text_encoder: Any = new_text_encoder(tokenizer)
    models = Models(
        unet=unet.to(options.device),
        text_encoder=text_encoder.to(options.device),
        vae=vae,
        tokenizer=tokenizer,
    )
    base_stage(options, models, atlas, peak_rate=1e-3)
    bank = lora_stage(options, models, atlas, workers, peak_rate=2e-3)
    judge_stage(options, vae, atlas)
    gate_stage(options, models, bank)
    dino_stage(options, atlas)


def main() -> None:
    """Read the options and train everything."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.train", description=__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, default=weights_dir())
    parser.add_argument("--vae-s", type=float, default=3000, help="seconds of training")
    options = parser.parse_args()
    with workers_of(options) as workers:
        prepare(options)
        options.out.mkdir(parents=True, exist_ok=True)
        _train(options, workers)


if __name__ == "__main__":
    main()
