"""``python -m emoji_world.refine``: go on training from the committed base model and LoRAs.

For another session of training, hours or weeks later, when no checkpoint is left. The base is
frozen but for its cross-attention, which learns to point better; then the LoRAs go on with it.
Autoencoder, judge and DINO stay. Everything is written to a folder of its own, so that the
committed weights change only when somebody copies it over them.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor

from emoji_world import base_model_dir, presence_file, weights_dir
from emoji_world.presence import load_presence
from emoji_world.training.base import latents_of, train_base
from emoji_world.training.files import load_pool, save_base, store_pool
from emoji_world.training.gates import gate_attention, gate_base, gate_loras
from emoji_world.training.lora_plan import PLAN
from emoji_world.training.loras import draw_lora_pools, sample_loras, train_loras
from emoji_world.training.pools import base_subjects, draw_pool
from emoji_world.training.report import say

__all__ = ["main"]

_ATTENTION_SHARE = 0.15
"""Of the budget; the rest is the LoRAs'."""


def _refine_attention(pipeline: Any, options: Any) -> None:
    """Let cross-attention go on learning where to look, and everything else stay."""
    work, device = options.work, torch.device(options.device)
    tokenizer = base_model_dir() / "tokenizer"
    path = work / "base.npz"
    if not path.is_file():
        pool = draw_pool(
            base_subjects,
            options.scenes,
            seed=options.seed,
            cache=options.artwork,
            tokenizer=tokenizer,
            captions=4,
        )
        store_pool(pool, path)
    latents = latents_of(load_pool(path), pipeline.vae, device)
    say(f"{len(latents.latents)} base scenes are drawn and encoded")
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    for name, parameter in unet.named_parameters():
        # Not its norms: torch 2.13 crashes in mixed precision where only they want a gradient.
        parameter.requires_grad_(".attn2." in name)
    train_base(
        unet,
        text_encoder,
        latents,
        pipeline.vae,
        pipeline.tokenizer,
        budget_s=options.budget_s * _ATTENTION_SHARE,
        batch=options.batch,
        device=device,
        work=work,
        peak_rate=3e-4,
        average_decay=0.99,
        name="refined-base",
    )
    unet.requires_grad_(False)
    save_base(
        options.out / "base",
        vae=pipeline.vae,
        text_encoder=text_encoder,
        tokenizer=pipeline.tokenizer,
        unet=unet,
    )
    silent = pipeline.tokenizer("", padding="max_length").input_ids
    gate_attention(unet, text_encoder, latents, torch.tensor(silent, device=device))


def _refine_loras(pipeline: Any, options: Any) -> None:
    work, device = options.work, torch.device(options.device)
    paths = [work / f"lora-{number}.npz" for number in range(len(PLAN))]
    if not all(path.is_file() for path in paths):
        pools = draw_lora_pools(
            options.lora_scenes,
            cache=options.artwork,
            tokenizer=base_model_dir() / "tokenizer",
            seed=options.seed,
        )
        for pool, path in zip(pools, paths, strict=True):
            store_pool(pool, path)
    models = pipeline.unet, pipeline.text_encoder, pipeline.vae, pipeline.tokenizer
    bank = train_loras(
        [load_pool(path) for path in paths],
        *models,
        budget_s=options.budget_s * (1 - _ATTENTION_SHARE),
        rows_each=max(2, options.batch // 16),
        device=device,
        work=work,
        out=options.out / "loras",
        peak_rate=1e-3,
        go_on=True,
    )
    pictures = sample_loras(PLAN, *models, device, each=16, seed=3)
    gate_loras(load_presence(presence_file()).to(device), pictures)
    bank.close()


def main() -> None:
    """Read the options and go on training."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.refine", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and pools")
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the refined weights")
    parser.add_argument("--budget-s", type=float, default=2 * 3600.0)
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes for the base")
    parser.add_argument("--lora-scenes", type=int, default=1_000, help="scenes for each LoRA")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=20_000, help="names the scenes that are drawn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.out.is_dir():
        shutil.copytree(weights_dir(), options.out)
    torch.manual_seed(options.seed)
    done = options.work / "refined-base.done"
    source = options.out / "base" if done.is_file() else base_model_dir()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        source, safety_checker=None, dtype=torch.float32
    ).to(options.device)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)
    if torch.device(options.device).type == "cpu":
        # On processors the backward pass of fused attention is the slower one.
        pipeline.unet.set_attn_processor(AttnProcessor())
    if not done.is_file():
        _refine_attention(pipeline, options)
        done.touch()
    net = load_presence(presence_file()).to(options.device)
    models = pipeline.unet, pipeline.text_encoder, pipeline.vae, pipeline.tokenizer
    gate_base(net, *models, torch.device(options.device), each=8)
    _refine_loras(pipeline, options)


if __name__ == "__main__":
    main()
