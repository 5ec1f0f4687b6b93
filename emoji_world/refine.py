"""``python -m emoji_world.refine``: go on training from the committed weights.

Stages, one after another in one process: base (text encoder and UNet), loras, judge, gates, which
are quick figures of what came out, and dino. Scenes are composed on the device, so only sprites and
backgrounds are drawn beforehand. The autoencoder stays. Everything is written to a folder of its
own: the committed weights change only when somebody copies it over them.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from transformers import ViTModel

from emoji_world import dino_dir, presence_file, weights_dir
from emoji_world.presence import load_presence
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

STAGES = ("base", "loras", "judge", "dino")


def _models(device: torch.device, source: Path) -> Models:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        source, safety_checker=None, dtype=torch.float32
    ).to(device)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)
    if device.type == "cpu":
        # On processors the backward pass of fused attention is the slower one.
        pipeline.unet.set_attn_processor(AttnProcessor())
    return Models(
        unet=pipeline.unet,
        text_encoder=pipeline.text_encoder,
        vae=pipeline.vae,
        tokenizer=pipeline.tokenizer,
    )


def _refine(options: Any, workers: Any) -> None:
    models = _models(options.device, options.out / "base")
    atlas = atlas_of(options, workers)
    bank = None
    if "base" in options.stages:
        base_stage(options, models, atlas, peak_rate=8e-4)
    if "loras" in options.stages:
        start = weights_dir() / "loras"
        bank = lora_stage(options, models, atlas, workers, peak_rate=1.5e-3, start=start)
    if "judge" in options.stages:
        judge_stage(options, models.vae, atlas, start=load_presence(presence_file()))
    gate_stage(options, models, bank)
    if "dino" in options.stages:
        body: Any = ViTModel.from_pretrained(
            dino_dir(), add_pooling_layer=False, dtype=torch.float32
        )
        dino_stage(options, atlas, body=body)


def main() -> None:
    """Read the options and go on training."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.refine", description=__doc__)
    add_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the refined weights")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    with workers_of(options) as workers:
        prepare(options)
        if not options.out.is_dir():
            shutil.copytree(weights_dir(), options.out)
        _refine(options, workers)


if __name__ == "__main__":
    main()
