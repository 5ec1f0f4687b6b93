"""``python -m emoji_world.refine``: go on training from the committed weights.

For another stretch of training, hours or weeks later, when no checkpoint is left. Stages hand over
files in the work folder, as those of ``emoji_world.train`` do: pools (scenes), base (text encoder
and UNet), loras, dino. Autoencoder and judge stay. Everything is written to a folder of its own, so
that the committed weights change only when somebody copies it over them.
"""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from transformers import ViTModel

from emoji_world import base_model_dir, dino_dir, presence_file, weights_dir
from emoji_world.presence import load_presence
from emoji_world.training.base import latents_of, train_base
from emoji_world.training.dino import retrieval, save_dino, train_dino
from emoji_world.training.files import load_pool, save_base, store_pool
from emoji_world.training.gates import gate_attention, gate_base, gate_loras
from emoji_world.training.lora_plan import PLAN
from emoji_world.training.loras import draw_lora_pools, sample_loras, train_loras
from emoji_world.training.pools import Pool, any_subjects, base_subjects, draw_pool
from emoji_world.training.report import say

_SHARES = {"dino": 0.25, "base": 0.4, "loras": 0.35}
STAGES = ("pools", *_SHARES)


def _stored(path: Path, draw: Callable[[], Pool]) -> Pool:
    """Return the pool at ``path``, which is drawn where it is not there."""
    if not path.is_file():
        store_pool(draw(), path)
        say(f"{path.stem}: drawn")
    return load_pool(path)


def _mixed_pool(options: Any) -> Pool:
    size = options.scenes // 5
    draw = partial(draw_pool, any_subjects, size, seed=options.seed + 1, twins="elsewhere")
    return _stored(options.work / "mixed.npz", partial(draw, cache=options.artwork))


def _base_pool(options: Any) -> Pool:
    draw = partial(draw_pool, base_subjects, options.scenes, seed=options.seed, captions=4)
    tokenizer = base_model_dir() / "tokenizer"
    return _stored(
        options.work / "base.npz", partial(draw, cache=options.artwork, tokenizer=tokenizer)
    )


def _lora_pools(options: Any) -> list[Pool]:
    paths = [options.work / f"lora-{number}.npz" for number in range(len(PLAN))]
    if not all(path.is_file() for path in paths):
        pools = draw_lora_pools(
            options.lora_scenes,
            cache=options.artwork,
            tokenizer=base_model_dir() / "tokenizer",
            seed=options.seed,
        )
        for pool, path in zip(pools, paths, strict=True):
            store_pool(pool, path)
        say("LoRA pools: drawn")
    return [load_pool(path) for path in paths]


def _refine_dino(options: Any) -> None:
    body: Any = ViTModel.from_pretrained(dino_dir(), add_pooling_layer=False, dtype=torch.float32)
    vit = train_dino(
        _mixed_pool(options),
        budget_s=options.budget_s * _SHARES["dino"],
        batch=min(384, 2 * options.batch),
        device=options.device,
        body=body,
    )
    fresh = draw_pool(any_subjects, 4_000, seed=options.seed + 2, cache=options.artwork)
    inside, everywhere = retrieval(vit, fresh, options.device)
    say(f"dino: right instance within its class {inside:.3f}, among all {everywhere:.3f}")
    save_dino(vit, options.out / "dino")


def _pipeline(options: Any, source: Path) -> Any:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        source, safety_checker=None, dtype=torch.float32
    ).to(options.device)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False)
    if options.device.type == "cpu":
        # On processors the backward pass of fused attention is the slower one.
        pipeline.unet.set_attn_processor(AttnProcessor())
    return pipeline


def _refine_base(options: Any) -> None:
    pipeline = _pipeline(options, base_model_dir())
    latents = latents_of(_base_pool(options), pipeline.vae, options.device)
    say(f"{len(latents.latents)} base scenes are encoded")
    train_base(
        pipeline.unet.requires_grad_(True),
        pipeline.text_encoder.requires_grad_(True),
        latents,
        pipeline.vae,
        pipeline.tokenizer,
        budget_s=options.budget_s * _SHARES["base"],
        batch=options.batch,
        device=options.device,
        work=options.work,
        peak_rate=7e-4,
    )
    parts = {name: getattr(pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    save_base(options.out / "base", **parts)
    silent = pipeline.tokenizer("", padding="max_length").input_ids
    gate_attention(
        pipeline.unet, pipeline.text_encoder, latents, torch.tensor(silent, device=options.device)
    )
    net = load_presence(presence_file()).to(options.device)
    sampled = pipeline.unet, pipeline.text_encoder, pipeline.vae, pipeline.tokenizer
    gate_base(net, *sampled, options.device, each=8)


def _refine_loras(options: Any) -> None:
    pipeline = _pipeline(options, options.out / "base")
    models = pipeline.unet, pipeline.text_encoder, pipeline.vae, pipeline.tokenizer
    bank = train_loras(
        _lora_pools(options),
        *models,
        budget_s=options.budget_s * _SHARES["loras"],
        rows_each=max(2, options.batch // 32),
        device=options.device,
        work=options.work,
        out=options.out / "loras",
        peak_rate=1e-3,
        go_on=True,
    )
    pictures = sample_loras(PLAN, *models, options.device, each=16, seed=3)
    gate_loras(load_presence(presence_file()).to(options.device), pictures)
    bank.close()


def _draw_pools(options: Any) -> None:
    for draw in (_mixed_pool, _lora_pools, _base_pool):
        draw(options)


def main() -> None:
    """Read the options and go on training."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.refine", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and pools")
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the refined weights")
    parser.add_argument(
        "--stage", choices=("all", *STAGES), default="all", help="all runs them one by one"
    )
    parser.add_argument(
        "--budget-s", type=float, default=2 * 3600.0, help="seconds for all stages together"
    )
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes for the base")
    parser.add_argument("--lora-scenes", type=int, default=1_000, help="scenes for each LoRA")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=20_000, help="names the scenes that are drawn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.device = torch.device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.out.is_dir():
        shutil.copytree(weights_dir(), options.out)
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    run = {"pools": _draw_pools, "dino": _refine_dino, "base": _refine_base, "loras": _refine_loras}
    for stage in STAGES if options.stage == "all" else [options.stage]:
        run[stage](options)


if __name__ == "__main__":
    main()
