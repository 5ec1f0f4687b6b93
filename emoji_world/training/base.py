"""Stage two: text encoder and UNet, trained together on latents, grounded from the start."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.scenes import WIDE_PX
from emoji_world.training.attention import (
    AttentionRecorder,
    grounding_loss,
    share_inside,
)
from emoji_world.training.latents import Batch, Latents, take
from emoji_world.training.loop import (
    Average,
    Checkpoint,
    autocast,
    compiled,
    learning_rate,
    optimizer_of,
    set_rate,
    timed_steps,
)
from emoji_world.training.parts import new_scheduler
from emoji_world.training.report import say, write_sheet
from emoji_world.training.sampling import encode_prompts, sample

SHEET_PROMPTS = (
    "a cat on the beach",
    "a dog in the forest",
    "a rabbit in the snow",
    "a penguin on the street",
    "a bear on the mountain",
    "a pig in the room",
    "a frog",
    "a flower in the forest",
    "a car on the street",
    "a house in the snow",
    "a robot in the room",
    "a ball on the beach",
    "a cat and a dog on the beach",
    "a rabbit and a car in the snow",
    "a bear and a frog in the room",
    "a dog, a cat and a flower in the forest",
)

_GROUNDING_WEIGHT = 0.05
_AVERAGE_DECAY = 0.9995
_RIVALS_FROM = 450
"""Noise level of 1000 above which a LoRA learns to take a subject over."""


def diffusion_loss(
    unet: Any,
    text: Tensor,
    batch: Batch,
    alphas: Tensor,
    recorder: AttentionRecorder,
    *,
    timesteps: Tensor | None = None,
    rivals: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return v-prediction loss and grounding loss of a batch; maps stay in the recorder.

    With ``rivals``, latents of the same scenes with another individual in the instance's place,
    half of the very noisy inputs show a mixture of both, and the clean scene is still the aim.
    """
    clean = batch.latents
    if timesteps is None:
        timesteps = torch.randint(len(alphas), (len(clean),), device=clean.device)
    kept = alphas[timesteps].sqrt()[:, None, None, None]
    lost = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn_like(clean)
    astray = torch.zeros_like(clean)
    if rivals is not None:
        share = torch.rand(len(clean), device=clean.device).sqrt()
        share *= (torch.rand_like(share) < 0.5) & (timesteps >= _RIVALS_FROM)
        astray = share[:, None, None, None] * (rivals - clean)
    recorder.maps.clear()
    with autocast(clean.device):
        predicted = unet(kept * (clean + astray) + lost * noise, timesteps, text).sample
    # The v that leads from this input to the clean scene; astray is zero for ordinary inputs.
    aim = kept * noise - lost * clean + kept**2 / lost.clamp(min=0.02) * astray
    error = functional.mse_loss(predicted.float(), aim)
    return error, grounding_loss(recorder.maps, batch.masks, batch.token_subjects)


def train_base(
    unet: Any,
    text_encoder: Any,
    pools: Sequence[Latents],
    vae: Any,
    tokenizer: Any,
    *,
    budget_s: float,
    batch: int,
    device: torch.device,
    work: Path,
    peak_rate: float = 1e-3,
    num_steps: int = 30,
) -> None:
    """Train what of UNet and text encoder asks for gradients; leave them with averaged weights.

    Pools, one of each width, take turns. Writes a sample sheet at the end.
    """
    unet.to(memory_format=torch.channels_last)
    both = torch.nn.ModuleList([unet, text_encoder])
    trained = [parameter for parameter in both.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(trained)
    average = Average(both, _AVERAGE_DECAY)
    checkpoint = Checkpoint(
        work / "base.pt", {"both": both, "optimizer": optimizer, "average": average}
    )
    elapsed_s = checkpoint.restore()
    alphas = new_scheduler().alphas_cumprod.to(device)
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device)
    recorder = AttentionRecorder(unet)
    denoise = compiled(unet, device)
    warm_up(unet, text_encoder, denoise, pools, batch, alphas, recorder)
    printed = time.monotonic()
    step = 0
    for step, share in timed_steps(budget_s, elapsed_s):
        set_rate(optimizer, learning_rate(peak_rate, step, share))
        pool = pools[step % len(pools)]
        rows = torch.randint(len(pool.latents), (batch,), device=device)
        chosen = take(pool, rows, empty)
        with autocast(device):
            text = text_encoder(chosen.tokens).last_hidden_state
        error, grounding = diffusion_loss(denoise, text, chosen, alphas, recorder)
        optimizer.zero_grad(set_to_none=True)
        (error + _GROUNDING_WEIGHT * grounding).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        checkpoint.save_if_due(share * budget_s)
        if time.monotonic() - printed > 20:
            printed = time.monotonic()
            inside = share_inside(recorder.maps, chosen.masks, chosen.token_subjects)
            say(
                f"base step {step} ({share:.0%}, {step * batch / 1e6:.2f} M samples): "
                f"mse {error.item():.4f}, grounding {grounding.item():.4f}, inside {inside:.3f}"
            )
    average.swap()
    recorder.close()
    say(f"base ends after {step + 1} steps of {batch}")
    _picture(unet, text_encoder, vae, tokenizer, device, work / "base.png", num_steps)


def warm_up(
    unet: Any,
    text_encoder: Any,
    denoise: Any,
    pools: Sequence[Latents],
    rows: int,
    alphas: Tensor,
    recorder: AttentionRecorder,
) -> None:
    """Compile the passes of every width before the time runs, leaving all gradients empty."""
    for pool in pools:
        batch = take(
            pool, torch.zeros(rows, dtype=torch.long, device=alphas.device), pool.tokens[0, 0]
        )
        with autocast(alphas.device):
            text = text_encoder(batch.tokens).last_hidden_state
        error, grounding = diffusion_loss(denoise, text, batch, alphas, recorder)
        (error + grounding).backward()
    for model in (unet, text_encoder):
        model.zero_grad(set_to_none=True)
    say(f"warm: {len(pools)} widths of {rows} rows")


def _picture(
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    path: Path,
    num_steps: int,
) -> None:
    prompts = [prompt for prompt in SHEET_PROMPTS for _ in range(6)]
    with torch.no_grad():
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        write_sheet(
            path, sample(unet, vae, text, empty, seed=1, num_steps=num_steps, width_px=WIDE_PX), 12
        )
