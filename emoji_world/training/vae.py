"""Stage one: the autoencoder, and latents of unit scale.

Trained on pictures with instances and styles too, since a LoRA cannot repair a decoder. The
latents' mean and deviation are folded into the convolutions next to them, so that the model's
scaling factor is 1 and nobody has to know them.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.composing.compose import to_pixels
from emoji_world.training.loop import (
    Average,
    Checkpoint,
    autocast,
    learning_rate,
    optimizer_of,
    set_rate,
    timed_steps,
)
from emoji_world.training.parts import new_vae
from emoji_world.training.report import say, write_sheet


def train_vae(
    images: Tensor, *, budget_s: float, batch: int, device: torch.device, work: Path
) -> Any:
    """Train on uint8 pictures [n, 64, 64, 3] and return the averaged model, latents of unit scale.

    The last 512 pictures are kept for the figure that is printed.
    """
    vae = new_vae().to(device).to(memory_format=torch.channels_last)  # pyright: ignore
    optimizer = optimizer_of(vae.parameters(), weight_decay=1e-4)
    average = Average(vae, 0.999)
    checkpoint = Checkpoint(
        work / "vae.pt", {"vae": vae, "optimizer": optimizer, "average": average}
    )
    elapsed_s = checkpoint.restore()
    train, fresh = images[:-512], images[-512:]
    printed = time.monotonic()
    step = 0
    for step, share in timed_steps(budget_s, elapsed_s):
        set_rate(optimizer, learning_rate(2e-3, step, share))
        rows = torch.randint(len(train), (batch,), device=images.device)
        pixels = to_pixels(train[rows].to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            latents = vae.encode(pixels).latent_dist
            decoded = vae.decode(latents.sample()).sample
        error = decoded.float() - pixels
        divergence = 0.5 * (latents.mean**2 + latents.var - 1 - latents.logvar).float().mean()
        loss = error.abs().mean() + 4 * error.square().mean() + 2e-4 * divergence
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update()
        checkpoint.save_if_due(share * budget_s)
        if time.monotonic() - printed > 20:
            printed = time.monotonic()
            say(
                f"vae step {step} ({share:.0%}): loss {loss.item():.4f}, "
                f"{psnr_db(vae, fresh, device):.2f} dB"
            )
    average.swap()
    _fold_scale(vae, train[:4096], device)
    say(
        f"vae ends after {step + 1} steps: {psnr_db(vae, fresh, device):.2f} dB on 512 fresh scenes"
    )
    with torch.no_grad():
        seen = to_pixels(fresh[:32].to(device))
        write_sheet(
            work / "vae.png",
            torch.cat([seen, vae.decode(vae.encode(seen).latent_dist.mean).sample]),
            16,
        )
    return vae


@torch.no_grad()
def _fold_scale(vae: Any, images: Tensor, device: torch.device) -> None:
    """Fold mean and deviation of each latent channel into quant_conv and post_quant_conv."""
    latents = encode_all(vae, images, device, dtype=torch.float32)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    before.weight[:channels] /= deviation[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / deviation
    before.bias[channels:] -= 2 * deviation.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= deviation[None, :, None, None]


@torch.no_grad()
def encode_all(
    vae: Any,
    images: Tensor,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float16,
    batch: int = 1024,
) -> Tensor:
    """Return the mean latents [n, 8, 16, 16] of uint8 pictures [n, 64, 64, 3]."""
    parts: list[Tensor] = []
    for start in range(0, len(images), batch):
        pixels = to_pixels(images[start : start + batch].to(device))
        with autocast(device):
            parts.append(vae.encode(pixels).latent_dist.mean.to(dtype))
    return torch.cat(parts)


@torch.no_grad()
def decode_all(vae: Any, latents: Tensor) -> Tensor:
    """Return the pictures in [-1, 1], float32 [n, 3, h, w], of latents [n, 8, h / 4, w / 4]."""
    with autocast(latents.device):
        return vae.decode(latents).sample.float()


@torch.no_grad()
def psnr_db(vae: Any, images: Tensor, device: torch.device) -> float:
    """Return the peak signal-to-noise ratio in dB of reconstructions of uint8 pictures."""
    total = 0.0
    for start in range(0, len(images), 128):
        pixels = to_pixels(images[start : start + 128].to(device))
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        total += functional.mse_loss(decoded, pixels, reduction="sum").item()
    return 10 * math.log10(4 / (total / (len(images) * 3 * 64 * 64)))
