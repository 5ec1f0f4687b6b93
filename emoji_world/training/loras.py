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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clora_core.lora.load import lora_targets, read_lora
from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.captions import PLACE_PHRASES, listed
from emoji_world.composing.atlas import Atlas
from emoji_world.composing.casting import BASE, LORA, ORDINARY, cast_scenes, recast
from emoji_world.composing.wording import Words
from emoji_world.lora_export import export_lora
from emoji_world.scenes import SIDE_PX
from emoji_world.training.attention import AttentionRecorder, share_inside
from emoji_world.training.base import diffusion_loss, warm_up
from emoji_world.training.latents import Latents, joined, latents_of, take
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
from emoji_world.training.report import say
from emoji_world.training.sampling import encode_prompts, sample

_GROUNDING_WEIGHT = 0.05
_AVERAGE_DECAY = 0.998


@dataclass(frozen=True, kw_only=True)
class LoraScenes:
    """Scenes of one width, those of each planned LoRA after another, equally many.

    Attributes:
        scenes: What is to be learnt.
        rivals: Latents of the same scenes with another individual in the instance's place.
        each: How many a LoRA has.
    """

    scenes: Latents
    rivals: Tensor
    each: int


def lora_scenes(
    each: int,
    width_px: int,
    atlas: Atlas,
    words: Words,
    vae: Any,
    *,
    plan: Sequence[PlannedLora],
    restyle: Callable[[str, Tensor], Tensor],
) -> LoraScenes:
    """Return ``each`` scenes of this width for every planned LoRA.

    Args:
        each: Scenes a LoRA.
        width_px: Their width.
        atlas: What stands in them.
        words: What is said about them.
        vae: The autoencoder.
        plan: The LoRAs.
        restyle: Gives pictures, uint8 [n, 64, width, 3], the style of that name.
    """
    scenes: list[Latents] = []
    rivals: list[Tensor] = []
    for planned in plan:
        draw = partial(latents_of, atlas=atlas, words=words, vae=vae, strange=0.1)
        if planned.instance is None:
            cast = cast_scenes(each, atlas, BASE, width_px)
            scenes.append(draw(cast, restyle=partial(restyle, planned.adapter.name)))
            rivals.append(scenes[-1].latents)
            continue
        lead = INSTANCES.index(planned.instance)
        mixture = LORA if planned.taught else ORDINARY
        cast = cast_scenes(each, atlas, mixture, width_px, lead=lead)
        scenes.append(draw(cast, grounded=planned.taught))
        if planned.taught:
            other = recast(cast, atlas, cast.instances == lead, BASE)
            rivals.append(draw(other, captions=1).latents)
        else:
            rivals.append(scenes[-1].latents)
    return LoraScenes(scenes=joined(scenes), rivals=torch.cat(rivals), each=each)


def train_loras(
    pools: Sequence[LoraScenes],
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    *,
    budget_s: float,
    rows_each: int,
    device: torch.device,
    work: Path,
    out: Path,
    plan: Sequence[PlannedLora] = PLAN,
    peak_rate: float = 2e-3,
    start: Path | None = None,
) -> LoraBank:
    """Train all LoRAs of the plan, write their files under ``out`` and return the open bank.

    Pools, one of each width, take turns. Files that ``start`` holds already are the start.
    """
    both = torch.nn.ModuleList([unet, text_encoder]).requires_grad_(False)
    bank = LoraBank([planned.adapter for planned in plan], unet=unet, text_encoder=text_encoder)
    for index, planned in enumerate(plan):
        finished = start and start / f"{planned.adapter.name}.safetensors"
        if finished and finished.is_file():
            bank.fill(index, _finished(finished, unet, both[1]))
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
    numbers = torch.arange(len(plan), device=device)[:, None]
    # The mean over tokens knows only those that are taught, the mean over latents all LoRAs.
    taught = _GROUNDING_WEIGHT * sum(planned.taught for planned in plan)
    scenes = [pool.scenes for pool in pools]
    warm_up(unet, text_encoder, denoise, scenes, len(plan) * rows_each, alphas, recorder)
    bank.zero_grad(set_to_none=True)
    printed = time.monotonic()
    step = 0
    for step, share in timed_steps(budget_s, elapsed_s):
        set_rate(optimizer, learning_rate(peak_rate, step, share, warmup_steps=50))
        pool = pools[step % len(pools)]
        rows = torch.randint(pool.each, (len(plan), rows_each), device=device)
        chosen = (rows + numbers * pool.each).flatten()
        batch = take(pool.scenes, chosen, empty)
        with autocast(device):
            text = text_encoder(batch.tokens).last_hidden_state
        error, grounding = diffusion_loss(
            denoise, text, batch, alphas, recorder, rivals=pool.rivals[chosen].float()
        )
        optimizer.zero_grad(set_to_none=True)
        # A mean over the whole batch: scaled up so that each LoRA sees the mean of its own rows.
        (len(plan) * error + taught * grounding).backward()
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
    return bank


def _finished(path: Path, unet: Any, text_encoder: Any) -> dict[str, Factors]:
    """Return the factors of a LoRA file by the bank's layer paths."""
    components = {"unet": unet, "text_encoder": text_encoder}
    loaded = read_lora(path, lora_targets(components)).as_factors()
    return {
        _bank_path(component, layer): Factors(down=factor.down, up=factor.up * factor.scale)
        for (component, layer), factor in loaded.items()
    }


def _bank_path(component: str, layer: str) -> str:
    if component == "text_encoder":
        return f"text_encoder.text_model.{layer.removeprefix('text_model.')}"
    return f"{component}.{layer}"


def sample_loras(
    plan: Sequence[PlannedLora],
    unet: Any,
    text_encoder: Any,
    vae: Any,
    tokenizer: Any,
    device: torch.device,
    *,
    others: int = 0,
    width_px: int = SIDE_PX,
    each: int = 16,
    num_steps: int = 30,
    seed: int = 2,
) -> Tensor:
    """Return ``each`` pictures of every LoRA's instance beside ``others`` ordinary subjects.

    The bank's hooks must be on the models, its adapters in the plan's order.
    """
    random = np.random.default_rng(seed)
    prompts: list[str] = []
    places = list(PLACE_PHRASES.values())
    for planned in plan:
        noun = planned.instance.noun if planned.instance else "cat"
        trigger = f"{planned.instance.trigger} " if planned.instance else ""
        for number in range(each):
            beside = random.choice([n for n in NOUNS if n != noun], others, replace=False)
            named = [f"a {trigger}{noun}", *(f"a {other}" for other in beside)]
            prompts.append(f"{listed(named)} {places[number % len(places)]}")
    with torch.no_grad():
        text = encode_prompts(prompts, tokenizer, text_encoder, device)
        empty = encode_prompts([""] * len(prompts), tokenizer, text_encoder, device)
        return sample(
            unet,
            vae,
            text,
            empty,
            seed=seed,
            num_steps=num_steps,
            guidance_scale=4.0,
            width_px=width_px,
        )
