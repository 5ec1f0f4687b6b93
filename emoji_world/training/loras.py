"""Stage three: the LoRAs, on a frozen base, all in one bank.

An instance is learnt alone *and* beside ordinary subjects: LoRAs that had only seen it alone lost
it in prompts with two subjects. Some scenes show the class without the instance and without the
trigger, which ties the look to the trigger. Attention stays supervised, so noun and trigger keep
pointing at the instance.

At this size a subject's colours are settled in the first few steps. A LoRA that had only seen noisy
pictures of its own instance follows whatever those steps began, and then methods that blend
predictions lose the instance. So part of the very noisy inputs show another of the class in its
place, and the LoRA learns to take the subject over, as LoRAs of large models do by themselves.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clora_core.lora.load import lora_targets, read_lora
from emoji_world.lora_export import export_lora
from emoji_world.styles import apply_style
from emoji_world.training.attention import AttentionRecorder, share_inside
from emoji_world.training.base import Latents, diffusion_loss, take
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
from emoji_world.training.lora_bank import Factors, LoraBank
from emoji_world.training.lora_plan import PLAN, PlannedLora
from emoji_world.training.parts import new_scheduler
from emoji_world.training.pools import Pool, base_subjects, draw_pool, instance_subjects
from emoji_world.training.report import say, write_sheet
from emoji_world.training.sampling import encode_prompts, sample
from emoji_world.training.vae import encode_all

_GROUNDING_WEIGHT = 0.05
_AVERAGE_DECAY = 0.998


def draw_lora_pools(
    size: int,
    *,
    cache: Path,
    tokenizer: Path,
    plan: Sequence[PlannedLora] = PLAN,
    alone: float = 0.5,
    absent: float = 0.15,
    seed: int = 9000,
) -> list[Pool]:
    """Return one pool of ``size`` scenes for each planned LoRA, in the plan's order."""
    pools: list[Pool] = []
    for number, planned in enumerate(plan):
        if planned.instance is not None:
            choose = partial(instance_subjects, planned.instance, alone=alone, absent=absent)
            transform = None
        else:
            choose, transform = base_subjects, partial(apply_style, name=planned.adapter.name)
        pools.append(
            draw_pool(
                choose,
                size,
                seed=seed + number,
                cache=cache,
                tokenizer=tokenizer,
                captions=4,
                transform=transform,
                strange=0.1,
                twins="rival",
            )
        )
    return pools


def train_loras(
    pools: list[Pool],
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    *,
    budget_s: float,
    rows_each: int,
    device: torch.device,
    work: Path,
    out: Path,
    plan: Sequence[PlannedLora] = PLAN,
    peak_rate: float = 2e-3,
    go_on: bool = False,
) -> LoraBank:
    """Train all LoRAs of the plan, write their files under ``out`` and return the open bank.

    With ``go_on`` the files that are there already are the start.
    """
    both = torch.nn.ModuleList([unet, text_encoder]).requires_grad_(False)
    latents, rivals = _stack(pools, vae, device)
    bank = LoraBank([planned.adapter for planned in plan], unet=unet, text_encoder=text_encoder)
    if go_on:
        for index, planned in enumerate(plan):
            bank.fill(index, _finished(out / f"{planned.adapter.name}.safetensors", unet, both[1]))
    optimizer = optimizer_of(bank.parameters(), weight_decay=0.01)
    average = Average(bank, _AVERAGE_DECAY)
    checkpoint = Checkpoint(
        work / "loras.pt", {"bank": bank, "optimizer": optimizer, "average": average}
    )
    elapsed_s = checkpoint.restore()
    alphas = new_scheduler().alphas_cumprod.to(device)
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device)
    recorder = AttentionRecorder(unet)
    denoise = compiled(unet, device)
    offsets = torch.arange(len(pools), device=device)[:, None] * len(pools[0].images)
    printed = time.monotonic()
    step = 0
    for step, share in timed_steps(budget_s, elapsed_s):
        set_rate(optimizer, learning_rate(peak_rate, step, share, warmup_steps=50))
        rows = torch.randint(len(pools[0].images), (len(pools), rows_each), device=device)
        chosen = (rows + offsets).flatten()
        batch = take(latents, chosen, empty)
        with autocast(device):
            text = text_encoder(batch.tokens).last_hidden_state
        error, grounding = diffusion_loss(
            denoise, text, batch, alphas, recorder, rivals=rivals[chosen].float()
        )
        optimizer.zero_grad(set_to_none=True)
        # A mean over the whole batch: scaled up so that each LoRA sees the mean of its own rows.
        (len(pools) * (error + _GROUNDING_WEIGHT * grounding)).backward()
        optimizer.step()
        average.update()
        checkpoint.save_if_due(share * budget_s)
        if time.monotonic() - printed > 20:
            printed = time.monotonic()
            inside = share_inside(recorder.maps, batch.masks, batch.token_subjects)
            say(f"loras step {step} ({share:.0%}): mse {error.item():.4f}, inside {inside:.3f}")
    average.swap()
    recorder.close()
    both.eval()
    say(f"loras end after {step + 1} steps of {rows_each} rows each")
    for index, planned in enumerate(plan):
        export_lora(
            out / f"{planned.adapter.name}.safetensors",
            {path: (f.down, f.up) for path, f in bank.factors(index).items()},
            file_format=planned.file_format,
            rank=planned.adapter.rank,
            alpha=planned.alpha,
            title=planned.adapter.name,
            trigger=planned.instance.trigger if planned.instance else None,
        )
    pictures = sample_loras(plan, unet, text_encoder, vae, tokenizer, device)
    write_sheet(work / "loras.png", pictures, 16)
    return bank


def _finished(path: Path, unet: Any, text_encoder: Any) -> dict[str, Factors]:
    """Return the factors of a LoRA file by the bank's layer paths."""
    components = {"unet": unet, "text_encoder": text_encoder}
    loaded = read_lora(path, lora_targets(components)).components
    return {
        _bank_path(component, layer): Factors(down=factor.down, up=factor.up * factor.scale)
        for component, factors in loaded.items()
        for layer, factor in factors.items()
    }


def _bank_path(component: str, layer: str) -> str:
    if component == "text_encoder":
        return f"text_encoder.text_model.{layer.removeprefix('text_model.')}"
    return f"{component}.{layer}"


def _stack(pools: list[Pool], vae: Any, device: torch.device) -> tuple[Latents, Tensor]:
    def joined(name: str) -> Tensor:
        return torch.cat([torch.from_numpy(getattr(pool, name)) for pool in pools])

    rivals = torch.cat([torch.from_numpy(p.twins if len(p.twins) else p.images) for p in pools])
    stacked = Latents(
        latents=encode_all(vae, joined("images"), device),
        masks=joined("masks").to(device),
        tokens=joined("tokens").to(device),
        token_subjects=joined("token_subjects").to(device),
    )
    return stacked, encode_all(vae, rivals, device)


def sample_loras(
    plan: Sequence[PlannedLora],
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    *,
    each: int = 16,
    seed: int = 2,
) -> Tensor:
    """Return ``each`` pictures of every LoRA: half alone, half beside another subject.

    The bank's hooks must be on the models, its adapters in the plan's order.
    """
    prompts: list[str] = []
    places = ("on the beach", "in the forest", "in the snow", "in the room")
    for planned in plan:
        noun = planned.instance.noun if planned.instance else "cat"
        trigger = f"{planned.instance.trigger} " if planned.instance else ""
        other = "car" if noun != "car" else "dog"
        for number in range(each):
            second = f" and a {other}" if number >= each // 2 else ""
            prompts.append(f"a {trigger}{noun}{second} {places[number % 4]}")
    with torch.no_grad():
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        return sample(unet, vae, text, empty, seed=seed)
