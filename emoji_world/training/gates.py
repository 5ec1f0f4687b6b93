"""Quick figures after a stage: is it worth going on? The real table is ``emoji_world.evaluate``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoji_world.bestiary import NOUNS
from emoji_world.captions import PLACE_PHRASES
from emoji_world.presence import PresenceNet, judge
from emoji_world.training.attention import AttentionRecorder, share_inside
from emoji_world.training.base import Latents, diffusion_loss, take
from emoji_world.training.lora_plan import PLAN, PlannedLora
from emoji_world.training.parts import new_scheduler
from emoji_world.training.report import say
from emoji_world.training.sampling import encode_prompts, sample


def _uint8(images: Tensor) -> list[NDArray[np.uint8]]:
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return list(pixels.cpu().numpy())


@torch.no_grad()
def gate_base(
    net: PresenceNet,
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    *,
    each: int = 40,
) -> None:
    """Print how often one subject, both of two subjects and the place are there."""
    random = np.random.default_rng(77)
    places = list(PLACE_PHRASES)
    for count in (1, 2):
        wanted = [
            (list(random.choice(NOUNS, count, replace=False)), places[random.integers(6)])
            for _ in range(each * 12)
        ]
        prompts = [
            " and ".join(f"a {noun}" for noun in nouns) + f" {PLACE_PHRASES[place]}"
            for nouns, place in wanted
        ]
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        verdicts = judge(net, _uint8(sample(unet, vae, text, empty, seed=5)))
        there = [
            all(v.present[n] > 0.5 for n in w[0]) for v, w in zip(verdicts, wanted, strict=True)
        ]
        right = [v.place == w[1] for v, w in zip(verdicts, wanted, strict=True)]
        say(
            f"gate: base with {count}: all present {np.mean(there):.3f}, place {np.mean(right):.3f}"
        )


@torch.no_grad()
def gate_loras(net: PresenceNet, images: Tensor, plan: Sequence[PlannedLora] = PLAN) -> None:
    """Print how often each LoRA's instance is there; the pictures of ``sample_loras``."""
    each = len(images) // len(plan)
    verdicts = judge(net, _uint8(images))
    for index, planned in enumerate(plan):
        if planned.instance is None:
            continue
        seen = np.array(
            [
                v.present[planned.instance.name] > 0.5
                for v in verdicts[index * each : (index + 1) * each]
            ]
        )
        say(
            f"gate: {planned.adapter.name:18s} alone {seen[: each // 2].mean():.2f}, "
            f"beside another {seen[each // 2 :].mean():.2f}"
        )


@torch.no_grad()
def gate_attention(
    unet: Any,
    text_encoder: Any,
    pool: Latents,
    empty: Tensor,
) -> None:
    """Print the share of attention inside the subject at several noise levels."""
    recorder = AttentionRecorder(unet)
    alphas = new_scheduler().alphas_cumprod.to(empty.device)
    for level in (200, 600, 800, 950):
        batch = take(pool, torch.arange(512, device=empty.device), empty)
        text = text_encoder(batch.tokens).last_hidden_state
        times = torch.full((512,), level, device=empty.device)
        error, _ = diffusion_loss(unet, text, batch, alphas, recorder, timesteps=times)
        inside = share_inside(recorder.maps, batch.masks, batch.token_subjects)
        say(f"gate: noise {level}: mse {error.item():.4f}, attention inside {inside:.3f}")
    recorder.close()
