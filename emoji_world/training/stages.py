"""The stages of training, one function each; ``train`` and ``refine`` say what they begin with.

Every stage writes its weights as soon as it has them, so a run that is cut off keeps what it made.
"""

import argparse
import multiprocessing
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emoji_world.artwork import load_sprites
from emoji_world.composing.atlas import Atlas, by_width, draw_backgrounds, make_atlas
from emoji_world.composing.blends import Codec, blended_scenes
from emoji_world.composing.casting import BASE, cast_scenes
from emoji_world.composing.wording import words_of
from emoji_world.presence import PresenceNet, load_presence, save_presence
from emoji_world.scenes import SIDE_PX, WIDE_PX
from emoji_world.styles import apply_style
from emoji_world.training.base import train_base
from emoji_world.training.dino import retrieval, save_dino, train_dino, twin_scenes
from emoji_world.training.files import save_base
from emoji_world.training.gates import gate_attention, gate_base, gate_loras
from emoji_world.training.judge import train_judge
from emoji_world.training.latents import latents_of
from emoji_world.training.lora_bank import LoraBank
from emoji_world.training.lora_plan import ORDINARY_PLAN, PLAN
from emoji_world.training.loras import lora_scenes, train_loras
from emoji_world.training.report import say
from emoji_world.training.vae import decode_all, encode_all

WIDTHS = (SIDE_PX, WIDE_PX)
LORAS = (*PLAN, *ORDINARY_PLAN)


@dataclass(frozen=True, kw_only=True)
class Models:
    """The parts of the base model, in the order that the stages name them."""

    unet: Any
    text_encoder: Any
    vae: Any
    tokenizer: Any

    @property
    def parts(self) -> tuple[Any, Any, Any, Any]:
        """UNet, text encoder, autoencoder, tokenizer."""
        return self.unet, self.text_encoder, self.vae, self.tokenizer


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what every way of training asks for."""
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and sheets")
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    for stage, seconds in (("base", 3000), ("loras", 3000), ("judge", 1500), ("dino", 1500)):
        parser.add_argument(f"--{stage}-s", type=float, default=seconds, help="seconds of training")
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes of each width, base")
    parser.add_argument("--lora-scenes", type=int, default=500, help="the same for each LoRA")
    parser.add_argument("--judge-scenes", type=int, default=10_000, help="the same, judge and DINO")
    parser.add_argument("--backgrounds", type=int, default=256, help="of each place and width")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lora-rows", type=int, default=2, help="rows of a batch for each LoRA")
    parser.add_argument("--each", type=int, default=16, help="pictures of a figure of the gates")
    parser.add_argument("--steps", type=int, default=30, help="denoising steps of those pictures")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seed", type=int, default=30_000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def workers_of(options: Any) -> Pool:
    """Return the pool that draws backgrounds and styles; start it before the accelerator."""
    return multiprocessing.get_context("forkserver").Pool(options.processes)


def prepare(options: Any) -> None:
    """Seed, choose the device and make the work folder."""
    options.device = torch.device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def atlas_of(options: Any, workers: Pool) -> Atlas:
    """Return everything that can stand in a scene, on the device."""
    drawn = draw_backgrounds(options.backgrounds, workers, seed=options.seed)
    sprites = load_sprites(options.artwork)
    atlas = make_atlas(sprites, by_width(drawn.get()), options.device)
    say(f"{len(sprites)} sprites, {options.backgrounds} backgrounds of each place and width")
    return atlas


def base_stage(options: Any, models: Models, atlas: Atlas, *, peak_rate: float) -> None:
    """Train UNet and text encoder and write the base model."""
    unet, text_encoder, vae, tokenizer = models.parts
    words = words_of(tokenizer, options.device)
    scenes = [
        latents_of(cast_scenes(options.scenes, atlas, BASE, width), atlas, words, vae)
        for width in WIDTHS
    ]
    say(f"{options.scenes} base scenes of each width are composed and encoded")
    train_base(
        unet.requires_grad_(True),
        text_encoder.requires_grad_(True),
        scenes,
        vae,
        tokenizer,
        budget_s=options.base_s,
        batch=options.batch,
        device=options.device,
        work=options.work,
        peak_rate=peak_rate,
        num_steps=options.steps,
    )
    save_base(
        options.out / "base", vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet
    )
    say("base is written")
    silent = torch.tensor(tokenizer("", padding="max_length").input_ids, device=options.device)
    gate_attention(unet, text_encoder, scenes, silent)


def _restyled(workers: Pool, style: str, images: Tensor) -> Tensor:
    styled = workers.map(partial(apply_style, name=style), list(images.cpu().numpy()), 64)
    return torch.from_numpy(np.stack(styled)).to(images.device)


def lora_stage(
    options: Any,
    models: Models,
    atlas: Atlas,
    workers: Pool,
    *,
    peak_rate: float,
    start: Path | None = None,
) -> LoraBank:
    """Train all LoRAs, write their files and return the open bank."""
    unet, text_encoder, vae, tokenizer = models.parts
    pools = [
        lora_scenes(
            options.lora_scenes,
            width,
            atlas,
            words_of(tokenizer, options.device),
            vae,
            plan=LORAS,
            restyle=partial(_restyled, workers),
        )
        for width in WIDTHS
    ]
    say(f"{options.lora_scenes} scenes of each width for each of {len(LORAS)} LoRAs")
    torch.compiler.reset()
    bank = train_loras(
        pools,
        unet,
        text_encoder,
        tokenizer,
        budget_s=options.loras_s,
        rows_each=options.lora_rows,
        device=options.device,
        work=options.work,
        out=options.out / "loras",
        plan=LORAS,
        peak_rate=peak_rate,
        start=start,
    )
    say("LoRAs are written")
    return bank


def judge_stage(options: Any, vae: Any, atlas: Atlas, *, start: PresenceNet | None = None) -> None:
    """Train the judge and write it."""
    codec = Codec(
        encode=partial(encode_all, vae, device=options.device, dtype=torch.float32),
        decode=partial(decode_all, vae),
    )
    pools = [blended_scenes(options.judge_scenes, width, atlas, codec) for width in WIDTHS]
    say(f"{options.judge_scenes} scenes of each width for the judge")
    net = train_judge(
        pools, budget_s=options.judge_s, batch=options.batch, device=options.device, start=start
    )
    save_presence(net, options.out / "presence.safetensors")
    say("judge is written")


def dino_stage(options: Any, atlas: Atlas, *, body: Any = None) -> None:
    """Train DINO and write it; ``body`` is where to go on."""
    vit = train_dino(
        twin_scenes(options.judge_scenes, atlas),
        budget_s=options.dino_s,
        batch=min(384, options.batch),
        device=options.device,
        body=body,
    )
    save_dino(vit, options.out / "dino")
    say("dino is written")
    inside, everywhere = retrieval(vit, twin_scenes(min(8192, options.judge_scenes), atlas))
    say(f"dino: right instance within its class {inside:.3f}, among all {everywhere:.3f}")


def gate_stage(options: Any, models: Models, bank: LoraBank | None) -> None:
    """Print figures of LoRAs, whose bank is closed then, and of the base."""
    net = load_presence(options.out / "presence.safetensors").to(options.device)
    given = *models.parts, options.device
    if bank is not None:
        sheet = options.work / "loras.png"
        gate_loras(net, LORAS, *given, each=options.each, num_steps=options.steps, sheet=sheet)
        bank.close()
    gate_base(net, *given, each=12 * options.each, num_steps=options.steps)
