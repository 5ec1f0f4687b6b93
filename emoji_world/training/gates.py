"""Quick figures after a stage: is it worth going on? The real table is ``emoji_world.evaluate``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoji_world.bestiary import NOUNS
from emoji_world.captions import PLACE_PHRASES, listed
from emoji_world.presence import PresenceNet, judge
from emoji_world.scenes import SIDE_PX, WIDE_PX
from emoji_world.training.attention import AttentionRecorder, share_inside
from emoji_world.training.base import diffusion_loss
from emoji_world.training.latents import Latents, take
from emoji_world.training.lora_plan import PlannedLora
from emoji_world.training.loras import sample_loras
from emoji_world.training.parts import new_scheduler
from emoji_world.training.report import say, write_sheet
from emoji_world.training.sampling import encode_prompts, sample

_DOUBLED = 1.5


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
    each: int = 200,
    num_steps: int = 30,
) -> None:
    """Print how often all of one to three subjects and the place are there, and doubles."""
    random = np.random.default_rng(77)
    places = list(PLACE_PHRASES)
    for width, count in ((w, c) for w in (SIDE_PX, WIDE_PX) for c in (1, 2, 3)):
        wanted = [
            (list(random.choice(NOUNS, count, replace=False)), places[random.integers(6)])
            for _ in range(each)
        ]
        prompts = [
            f"{listed([f'a {noun}' for noun in nouns])} {PLACE_PHRASES[place]}"
            for nouns, place in wanted
        ]
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        pictures = sample(
            unet, vae, text, empty, seed=5, num_steps=num_steps, guidance_scale=4.0, width_px=width
        )
        verdicts = judge(net, _uint8(pictures))
        there = [
            all(v.present[n] > 0.5 for n in w[0]) for v, w in zip(verdicts, wanted, strict=True)
        ]
        right = [v.place == w[1] for v, w in zip(verdicts, wanted, strict=True)]
        doubled = [any(v.copies.get(noun, 0) > _DOUBLED for noun in NOUNS) for v in verdicts]
        say(
            f"gate: base with {count} at {width} px: all present {np.mean(there):.3f}, "
            f"doubled {np.mean(doubled):.3f}, place {np.mean(right):.3f}"
        )


@torch.no_grad()
def gate_loras(
    net: PresenceNet,
    plan: Sequence[PlannedLora],
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    *,
    each: int = 16,
    num_steps: int = 30,
    sheet: Any = None,
) -> None:
    """Print how often each LoRA's instance is there and is clearly itself, beside 0 to 2 others."""
    found: dict[str, list[str]] = {planned.adapter.name: [] for planned in plan}
    models = unet, text_encoder, vae, tokenizer, device
    for width, others in ((SIDE_PX, 0), (SIDE_PX, 1), (SIDE_PX, 2), (WIDE_PX, 1), (WIDE_PX, 2)):
        pictures = sample_loras(
            plan, *models, others=others, width_px=width, each=each, num_steps=num_steps
        )
        verdicts = judge(net, _uint8(pictures))
        if sheet is not None and width == WIDE_PX:
            first = pictures.unflatten(0, (len(plan), each))[:, :4].flatten(0, 1)
            write_sheet(sheet.with_suffix(f".{others}.png"), first, 12)
        for index, planned in enumerate(plan):
            if planned.instance is None:
                continue
            own = verdicts[index * each : (index + 1) * each]
            name = planned.instance.name
            present = np.mean([v.present[name] > 0.5 for v in own])
            itself = np.mean([v.identity.get(name, 0.0) > 0.5 for v in own])
            found[planned.adapter.name].append(f"{present:.2f}/{itself:.2f}")
    say("gate: present/itself: 64 px alone, beside one, two; 96 px beside one, two")
    for name, shares in found.items():
        say(f"gate: {name:22s} {'  '.join(shares)}")


@torch.no_grad()
def gate_attention(
    unet: Any,
    text_encoder: Any,
    pools: Sequence[Latents],
    empty: Tensor,
) -> None:
    """Print the share of attention inside the subject at several noise levels."""
    recorder = AttentionRecorder(unet)
    alphas = new_scheduler().alphas_cumprod.to(empty.device)
    for pool in pools:
        count = min(512, len(pool.latents))
        for level in (200, 600, 800, 950):
            batch = take(pool, torch.arange(count, device=empty.device), empty)
            text = text_encoder(batch.tokens).last_hidden_state
            times = torch.full((count,), level, device=empty.device)
            error, _ = diffusion_loss(unet, text, batch, alphas, recorder, timesteps=times)
            inside = share_inside(recorder.maps, batch.masks, batch.token_subjects)
            say(f"gate: noise {level}: mse {error.item():.4f}, attention inside {inside:.3f}")
    recorder.close()
