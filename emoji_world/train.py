"""``python -m emoji_world.train``: make every weight of the embedded world again.

Stages hand over files in the work folder, so each can be run alone, cut off and continued:
pools (scenes), vae, base (text encoder and UNet), loras, judge, dino. On an accelerator the
stages that do not wait for each other run side by side. The time budget is shared out among
the stages; more time is better weights.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoji_world import weights_dir
from emoji_world.bestiary import INSTANCES
from emoji_world.training.files import load_pool, save_base, store_pool
from emoji_world.training.pools import any_subjects, base_subjects, draw_pool
from emoji_world.training.report import say

STAGES = ("pools", "judge", "dino", "main")
_SHARES = {"vae": 0.17, "base": 0.63, "loras": 0.2, "judge": 0.1, "dino": 0.35}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where things are and how much of everything there is."""

    work: Path
    artwork: Path
    out: Path
    device: torch.device
    budget_s: float
    scale: float
    batch: int

    def seconds(self, stage: str) -> float:
        """Return the stage's part of the time budget."""
        return self.budget_s * _SHARES[stage]

    def scenes(self, count: int) -> int:
        """Return a pool size at this run's scale, never under 120."""
        return max(120, int(count * self.scale))

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        return self.out / "base" / "tokenizer"


def _draw_mixed(plan: Plan) -> None:
    """Draw the pool with instances that autoencoder, judge and DINO learn from."""
    path = plan.work / "mixed.npz"
    if not path.is_file():
        size = plan.scenes(60_000)
        store_pool(
            draw_pool(any_subjects, size, seed=1, cache=plan.artwork, twins="elsewhere"), path
        )
        say(f"drew {size} mixed scenes")


def _pools(plan: Plan) -> None:
    from emoji_world.training.loras import draw_lora_pools
    from emoji_world.training.parts import new_tokenizer

    new_tokenizer(plan.tokenizer)
    path = plan.work / "base.npz"
    if not path.is_file():
        size = plan.scenes(320_000)
        store_pool(
            draw_pool(
                base_subjects,
                size,
                seed=2,
                cache=plan.artwork,
                tokenizer=plan.tokenizer,
                captions=4,
            ),
            path,
        )
        say(f"drew {size} base scenes")
    pools = draw_lora_pools(plan.scenes(3_000), cache=plan.artwork, tokenizer=plan.tokenizer)
    for number, pool in enumerate(pools):
        store_pool(pool, plan.work / f"lora-{number}.npz")
    say(f"drew {len(pools)} LoRA pools of {len(pools[0].images)} scenes")


def _judge(plan: Plan) -> None:
    from emoji_world.presence import save_presence
    from emoji_world.training.judge import train_judge

    net = train_judge(
        load_pool(plan.work / "mixed.npz"),
        budget_s=plan.seconds("judge"),
        batch=min(512, plan.batch),
        device=plan.device,
        work=plan.work,
    )
    save_presence(net, plan.out / "presence.safetensors")


def _dino(plan: Plan) -> None:
    from emoji_world.training.dino import retrieval, save_dino, train_dino

    vit = train_dino(
        load_pool(plan.work / "mixed.npz"),
        budget_s=plan.seconds("dino"),
        batch=min(384, plan.batch),
        device=plan.device,
    )
    fresh = draw_pool(any_subjects, plan.scenes(6_000), seed=4, cache=plan.artwork)
    inside, everywhere = retrieval(vit, fresh, plan.device)
    say(f"dino: right instance within its class {inside:.3f}, among all {everywhere:.3f}")
    save_dino(vit, plan.out / "dino")


def _main(plan: Plan) -> None:
    from emoji_world.styles import apply_style
    from emoji_world.training.base import latents_of, train_base
    from emoji_world.training.parts import new_text_encoder, new_tokenizer, new_unet
    from emoji_world.training.vae import train_vae

    device = plan.device
    tokenizer = new_tokenizer(plan.tokenizer)
    _draw_mixed(plan)
    others = _start_others(plan)
    mixed = load_pool(plan.work / "mixed.npz").images
    some = mixed[: len(mixed) // 12]
    styled = [
        np.stack([apply_style(i, s) for i in some]) for s in ("pixel-art", "line-art", "night")
    ]
    images = torch.from_numpy(np.concatenate([*styled, mixed])).to(device)
    vae = (
        train_vae(
            images,
            budget_s=plan.seconds("vae"),
            batch=min(256, plan.batch),
            device=device,
            work=plan.work,
        )
        .eval()
        .requires_grad_(False)
    )
    del images
    vae.half().save_pretrained(plan.out / "base" / "vae")
    vae.float()
    others["pools"].wait()
    pool = load_pool(plan.work / "base.npz")
    latents = latents_of(pool, vae, device)
    say(
        f"encoded {len(pool.images)} scenes, "
        f"latents of deviation {latents.latents.float().std():.3f}"
    )
    unet: Any = new_unet()
    text_encoder: Any = new_text_encoder(tokenizer)
    unet.to(device)
    text_encoder.to(device)
    train_base(
        unet,
        text_encoder,
        latents,
        vae,
        tokenizer,
        budget_s=plan.seconds("base"),
        batch=plan.batch,
        device=device,
        work=plan.work,
    )
    save_base(plan.out / "base", vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet)
    _loras(plan, unet, text_encoder, vae, tokenizer, latents, others)


def _loras(
    plan: Plan,
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    latents: Any,
    others: dict[str, Any],
) -> None:
    from emoji_world.presence import load_presence
    from emoji_world.training.gates import gate_attention, gate_base, gate_loras
    from emoji_world.training.lora_plan import PLAN
    from emoji_world.training.loras import sample_loras, train_loras

    device = plan.device
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device)
    gate_attention(unet, text_encoder, latents, empty)
    others["judge"].wait()
    net = load_presence(plan.out / "presence.safetensors").to(device)
    gate_base(net, unet, text_encoder, vae, tokenizer, device)
    pools = [load_pool(plan.work / f"lora-{number}.npz") for number in range(len(PLAN))]
    bank = train_loras(
        pools,
        unet,
        text_encoder,
        vae,
        tokenizer,
        budget_s=plan.seconds("loras"),
        rows_each=max(2, plan.batch // 16),
        device=device,
        work=plan.work,
        out=plan.out / "loras",
    )
    gate_loras(net, sample_loras(PLAN, unet, text_encoder, vae, tokenizer, device, each=32, seed=3))
    bank.close()
    others["dino"].wait()
    say(f"done: {len(INSTANCES)} instances")


def _start_others(plan: Plan) -> dict[str, Any]:
    """Start the stages that do not need the autoencoder, beside this one or before it."""
    started: dict[str, Any] = {}
    for stage in ("pools", "judge", "dino"):
        command = [sys.executable, "-m", "emoji_world.train", *sys.argv[1:], "--stage", stage]
        started[stage] = subprocess.Popen(  # noqa: S603 - this module again
            command, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        if plan.device.type != "cuda":
            started[stage].wait()
    return started


def main() -> None:
    """Read the options and run one stage or all of them."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and pools")
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    parser.add_argument("--out", type=Path, default=weights_dir())
    parser.add_argument("--stage", choices=STAGES, default="main", help="main runs all of them")
    parser.add_argument("--budget-s", type=float, default=6 * 3600.0)
    parser.add_argument(
        "--scale", type=float, default=0.1, help="size of the pools; 1 is 380k scenes"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = vars(parser.parse_args())
    stage = options.pop("stage")
    device = torch.device(options.pop("device"))
    plan = Plan(**options, device=device)
    plan.work.mkdir(parents=True, exist_ok=True)
    plan.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20240328 + STAGES.index(stage))
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    {"pools": _pools, "judge": _judge, "dino": _dino, "main": _main}[stage](plan)


if __name__ == "__main__":
    main()
