"""Stage two: text encoder and UNet, trained together on latents, grounded from the start."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.training.attention import (
    AttentionRecorder,
    grounding_loss,
    share_inside,
)
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
from emoji_world.training.pools import Pool
from emoji_world.training.report import say, write_sheet
from emoji_world.training.sampling import encode_prompts, sample
from emoji_world.training.vae import encode_all

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

_EMPTY_CAPTIONS = 0.1
_GROUNDING_WEIGHT = 0.05
_AVERAGE_DECAY = 0.9995
_RIVALS_FROM = 450
"""Noise level of 1000 above which a LoRA learns to take a subject over."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """A pool as the diffusion stages see it, on the device.

    Attributes:
        latents: float16 [n, 8, 16, 16].
        masks: uint8 [n, subject, 16, 16].
        tokens: Token ids, [n, captions, 24].
        token_subjects: Subject of each token, [n, captions, 24].
    """

    latents: Tensor
    masks: Tensor
    tokens: Tensor
    token_subjects: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of ``Latents`` with one caption each."""

    latents: Tensor
    masks: Tensor
    tokens: Tensor
    token_subjects: Tensor


def latents_of(pool: Pool, vae: Any, device: torch.device) -> Latents:
    """Return a pool on the device, its pictures encoded."""
    return Latents(
        latents=encode_all(vae, torch.from_numpy(pool.images), device),
        masks=torch.from_numpy(pool.masks).to(device),
        tokens=torch.from_numpy(pool.tokens).to(device),
        token_subjects=torch.from_numpy(pool.token_subjects).to(device),
    )


def take(pool: Latents, rows: Tensor, empty_tokens: Tensor) -> Batch:
    """Return rows of the pool with a random caption each, a tenth of them empty."""
    caption = torch.randint(pool.tokens.shape[1], rows.shape, device=rows.device)
    tokens = pool.tokens[rows, caption].long()
    owners = pool.token_subjects[rows, caption]
    silent = torch.rand(rows.shape, device=rows.device) < _EMPTY_CAPTIONS
    return Batch(
        latents=pool.latents[rows].float(),
        masks=pool.masks[rows],
        tokens=torch.where(silent[:, None], empty_tokens, tokens),
        token_subjects=owners * ~silent[:, None],
    )


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
    pool: Latents,
    vae: Any,
    tokenizer: Any,
    *,
    budget_s: float,
    batch: int,
    device: torch.device,
    work: Path,
    peak_rate: float = 1e-3,
) -> None:
    """Train what of UNet and text encoder asks for gradients; leave them with averaged weights.

    Writes sample sheets as it goes.
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
    printed = time.monotonic()
    pictured = 0.0
    step = 0
    for step, share in timed_steps(budget_s, elapsed_s):
        set_rate(optimizer, learning_rate(peak_rate, step, share))
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
        if share - pictured > 0.24:
            pictured = share
            average.swap()
            _picture(unet, text_encoder, vae, tokenizer, device, work / "base.png")
            average.swap()
    average.swap()
    recorder.close()
    say(f"base ends after {step + 1} steps of {batch}")
    _picture(unet, text_encoder, vae, tokenizer, device, work / "base.png")


def _picture(
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    path: Path,
) -> None:
    prompts = [prompt for prompt in SHEET_PROMPTS for _ in range(4)]
    with torch.no_grad():
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        write_sheet(path, sample(unet, vae, text, empty, seed=1), 16)
