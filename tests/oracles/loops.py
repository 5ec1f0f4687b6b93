"""Definitions written as loops, and the simple methods as loops over steps and LoRAs.

Slow enough that no test needs large inputs, plain enough to be read against the paper.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from oracles.importance import loop_importance
from oracles.k_lora import choose_layers
from oracles.peft_pipeline import (
    activate,
    encode,
    guide,
    initial_latents,
    loaded_loras,
    make_solver,
    predict,
)
from oracles.prompts import all_triggers
from torch import Tensor

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Row

# ---------------------------------------------------------------------------------- definitions


def loop_loss(
    maps: Sequence[Sequence[float]], labels: Sequence[int], *, temperature: float
) -> float:
    """Return the NT-Xent loss of flat maps, straight from its definition.

    Args:
        maps: A map each, any positive scale.
        labels: Which concept each belongs to.
        temperature: Of the softmax.
    """
    shifted = [[value - min(row) for value in row] for row in maps]
    terms: list[float] = []
    for anchor, anchor_label in enumerate(labels):
        for partner, partner_label in enumerate(labels):
            if partner == anchor or partner_label != anchor_label:
                continue
            pull = math.exp(_cosine(shifted[anchor], shifted[partner]) / temperature)
            push = sum(
                math.exp(_cosine(shifted[anchor], shifted[other]) / temperature)
                for other, other_label in enumerate(labels)
                if other_label != anchor_label
            )
            terms.append(-math.log(pull / (pull + push)))
    return sum(terms) / len(terms)


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / (math.hypot(*left) * math.hypot(*right))


def loop_masks(maps: Tensor, words: Sequence[Sequence[int]], *, threshold: float) -> Tensor:
    """Return where each variant counts, bool [variant, height, width], pixel by pixel.

    Args:
        maps: [variant, height, width, token].
        words: For each variant the tokens of its own concept; none for the base variant.
        threshold: Share of a map's peak that a pixel must exceed.
    """
    num_variants, height, width, _ = maps.shape
    masks = torch.zeros(num_variants, height, width, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            for variant in range(num_variants):
                for token in words[variant]:
                    peak = maps[variant, :, :, token].max()
                    if maps[variant, y, x, token] > threshold * peak:
                        masks[variant, y, x] = True
            if not masks[:, y, x].any():
                masks[0, y, x] = True
    return masks


def loop_blend(predictions: Tensor, masks: Tensor) -> Tensor:
    """Return the blended prediction [channel, height, width], pixel by pixel.

    Args:
        predictions: [variant, channel, height, width].
        masks: bool [variant, map height, map width]; each pixel in one at least.
    """
    _, num_channels, height, width = predictions.shape
    _, map_height, map_width = masks.shape
    blended = torch.zeros(num_channels, height, width, dtype=predictions.dtype)
    for y in range(height):
        for x in range(width):
            holds = masks[:, y * map_height // height, x * map_width // width]
            blended[:, y, x] = predictions[holds, :, y, x].mean(dim=0)
    return blended


# -------------------------------------------------------------------------------------- methods


def loop_sample(pipeline: Any, row: Row) -> Tensor:
    """Return the final latents of a row of a method without masks and updates.

    Args:
        pipeline: From ``load_pipeline``, in the dtype to sample in; left as it was.
        row: What to make.
    """
    config = row.sampler
    guided = config.guidance_scale != 1
    is_base = row.method == "base"
    loras = () if is_base else row.loras
    prompt = row.prompt if is_base else all_triggers(row.prompt, row.concepts)
    solver = make_solver(pipeline, row)
    z = initial_latents(pipeline, row, solver)
    importance = [1 / max(1, len(row.concepts))] * len(row.concepts)
    how = {"w-switch": "ablated", "w-composite": "triggers"}.get(row.method)
    if how is not None:
        importance = loop_importance(pipeline, row.prompt, row.concepts, how)

    with loaded_loras(pipeline, loras) as names, torch.no_grad():
        everything = [(name, _weight(lora, row)) for name, lora in zip(names, loras, strict=True)]
        styles = [
            pair for pair, lora in zip(everything, loras, strict=True) if lora.kind == "style"
        ]
        activate(pipeline, everything, in_text=None if config.text_encoder_lora else styles)
        text = encode(pipeline, row, prompt, guided=guided)
        for step, timestep in enumerate(solver.timesteps):
            guided_noises: list[Tensor] = []
            for adapters in _turns(row, everything, step, importance):
                activate(pipeline, adapters)
                if row.method == "k-lora":
                    by_kind = {lora.kind: name for name, lora in zip(names, loras, strict=True)}
                    scale = config.k_lora_alpha * (step / config.num_steps) + config.k_lora_beta
                    choose_layers(pipeline.unet, by_kind["concept"], by_kind["style"], scale)
                predicted = predict(pipeline, solver, z, timestep, text)
                guided_noises.append(guide(predicted, config.guidance_scale))
            factors = importance if len(guided_noises) > 1 else [1.0]
            noise = sum(w * each for w, each in zip(factors, guided_noises, strict=True))
            noise = noise / sum(factors)
            z = solver.step(noise, timestep, z, return_dict=False)[0]
    return z


def _turns(
    row: Row, everything: list[tuple[str, float]], step: int, importance: Sequence[float]
) -> list[list[tuple[str, float]]]:
    """Return the adapter sets whose predictions are averaged on this step."""
    if row.method in {"base", "single", "merge", "k-lora"} or not row.concepts:
        return [everything]
    pairs = list(zip(everything, row.loras, strict=True))
    styles = [pair for pair, lora in pairs if lora.kind == "style"]
    alone = [[pair, *styles] for pair, lora in pairs if lora.kind == "concept"]
    if row.method in {"composite", "w-composite"}:
        return alone
    if row.method == "w-switch":
        return [alone[loop_turns(importance, row.sampler)[step]]]
    if row.method == "switch":
        return [alone[_switch_index(row, step)]]
    raise ValueError(f"no loop for method {row.method!r}")


def loop_turns(importance: Sequence[float], config: SamplerConfig) -> list[int]:
    """Return the concept of each step under w-switch, as the released schedule is written."""
    lengths = [max(1, round(config.switch_every * w / max(importance))) for w in importance]
    schedule: list[int] = []
    while len(schedule) < config.num_steps:
        for concept, length in enumerate(lengths):
            schedule += [concept] * length
    schedule = schedule[: config.num_steps]
    num_last = math.ceil(config.num_steps * 5 / 100)
    schedule[-num_last:] = [0] * num_last
    if not config.switch_as_published:
        return schedule
    # Its callback runs at the end of each step, and the first LoRA is active before the first.
    return [0] + [schedule[finished] for finished in range(config.num_steps - 1)]


def _switch_index(row: Row, step: int) -> int:
    num, period = len(row.concepts), row.sampler.switch_every
    if not row.sampler.switch_as_published:
        return (step % (num * period)) // period
    active = 0
    for finished in range(step):  # the published callback runs at the end of each step
        if finished > 0 and finished % period == 0:
            active = (active + 1) % num
    return active


def _weight(lora: Lora, row: Row) -> float:
    shared = row.method == "merge" and row.sampler.merge_weights == "mean"
    if shared and lora.kind == "concept":
        return lora.weight / len(row.concepts)
    return lora.weight
