"""Plain sampling for the pictures that training shows: DDIM with guidance, a whole batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emoji_world.training.loop import autocast
from emoji_world.training.parts import new_scheduler


def encode_prompts(
    prompts: Sequence[str], tokenizer: Any, text_encoder: Any, device: torch.device
) -> Tensor:
    """Return the text states of prompts, padded as Stable Diffusion pads them."""
    tokens = tokenizer(
        list(prompts), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return text_encoder(tokens.to(device)).last_hidden_state


@torch.no_grad()
@torch.backends.cudnn.flags(enabled=True, benchmark=False)
def sample(
    unet: Any,
    vae: Any,
    text: Tensor,
    empty: Tensor,
    *,
    seed: int,
    num_steps: int = 30,
    guidance_scale: float = 3.0,
    width_px: int = 64,
) -> Tensor:
    """Return pictures in [-1, 1], [n, 3, 64, width].

    Args:
        unet: The denoiser; LoRA hooks may sit on it.
        vae: Decodes.
        text: Text states [n, token, width].
        empty: Text states of the empty prompt, [n, token, width].
        seed: Of the starting noise.
        num_steps: Denoising steps.
        guidance_scale: Classifier-free guidance.
        width_px: Width of the pictures.
    """
    device = text.device
    scheduler: Any = new_scheduler()
    scheduler.set_timesteps(num_steps, device=device)
    generator = torch.Generator("cpu").manual_seed(seed)
    latents = torch.randn(len(text), 8, 16, width_px // 4, generator=generator).to(device)
    for timestep in scheduler.timesteps:
        # Two calls and not one of twice the batch: LoRA banks count on the batch's order.
        with autocast(device):
            guided = unet(latents, timestep, text).sample.float()
            plain = unet(latents, timestep, empty).sample.float()
        prediction = plain + guidance_scale * (guided - plain)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return torch.cat([vae.decode(part.to(vae.dtype)).sample for part in latents.split(512)])
