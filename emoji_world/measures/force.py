"""What each lane does to an instance that is already there, one noise level at a time.

A drawn scene shows both instances of a pair. Noise is added, a lane predicts the clean latents with
guidance, and the squared error is taken in the cells of the first instance, where the drawing is
known. A lane that knows the instance leaves it; one that does not draws over it, and the error says
how hard. It is why a method that mixes lanes keeps an instance or loses it.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clora_core.lora.kinds.factor import Factor
from clora_core.lora.load import lora_targets, read_lora
from emoji_world.artwork import Sprites, load_sprites
from emoji_world.bestiary import INSTANCES, Instance, instance_name
from emoji_world.composing.compose import to_pixels
from emoji_world.measures.table import Figure, of_mean
from emoji_world.scenes import draw_scene, of_instance
from emoji_world.training.parts import new_scheduler

GUIDANCE = 4.0
LEVELS = (600, 250)
SCENES = 3
LANES = ("own", "merge", "composite", "other", "base")
"""The instance's own LoRA, both added, the mean of both lanes, the other LoRA, none."""


@torch.no_grad()
def force_figures(
    pipeline: Any, folder: Path, pairs: Sequence[tuple[str, str]], *, cache: Path, label: str
) -> list[Figure]:
    """Return the mean error over pairs for each noise level and lane.

    Args:
        pipeline: A diffusers ``StableDiffusionPipeline`` of the base model.
        folder: Of the LoRA files.
        pairs: Names of LoRAs.
        cache: Folder of the artwork.
        label: What the LoRAs are called in the names of the figures.
    """
    sprites, generator = load_sprites(cache), torch.Generator().manual_seed(0)
    errors: dict[tuple[int, str], list[float]] = {}
    for index, pair in enumerate(pairs):
        clean, cells = _scenes(pipeline.vae, pair, sprites, np.random.default_rng([5, index]))
        for level in LEVELS:
            noise = torch.randn(clean.shape, generator=generator)
            predicted = _lanes(pipeline, folder, pair, clean, noise, level)
            for lane, latents in predicted.items():
                error = ((latents - clean).square() * cells).sum() / (cells.sum() * clean.shape[1])
                errors.setdefault((level, lane), []).append(float(error))
    return [
        of_mean(f"{label}: error in the instance's cells, noise {level}, {lane}", values)
        for (level, lane), values in errors.items()
    ]


def _scenes(
    vae: Any, pair: tuple[str, str], sprites: Sprites, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return latents [scenes, 8, 16, 16] and the first instance's cells [scenes, 1, 16, 16]."""
    subjects = [of_instance(_instance(name)) for name in pair]
    order = [int(index) for index in random.permutation(len(pair))]
    scenes = [draw_scene([subjects[k] for k in order], sprites, random) for _ in range(SCENES)]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    masks = torch.from_numpy(np.stack([scene.masks[order.index(0)] for scene in scenes]))
    return vae.encode(to_pixels(images)).latent_dist.mean, masks[:, None] > 0.5


def _lanes(
    pipeline: Any,
    folder: Path,
    pair: tuple[str, str],
    clean: Tensor,
    noise: Tensor,
    level: int,
) -> dict[str, Tensor]:
    """Return the clean latents that each lane predicts."""
    alpha = new_scheduler().alphas_cumprod[level]
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    def lane(*named: str) -> Tensor:
        prompt = " and ".join(
            f"a {_instance(name).trigger} {_instance(name).noun}"
            if name in named
            else f"a {_instance(name).noun}"
            for name in pair
        )
        with merged(pipeline, [folder / f"{name}.safetensors" for name in named]):
            text = torch.cat([_encoded(pipeline, each, len(clean)) for each in (prompt, "")])
            output = pipeline.unet(torch.cat([noisy, noisy]), level, text).sample
        guided, plain = output.chunk(2)
        velocity = plain + GUIDANCE * (guided - plain)
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity

    own, other = lane(pair[0]), lane(pair[1])
    predicted = (own, lane(*pair), (own + other) / 2, other, lane())
    return dict(zip(LANES, predicted, strict=True))


@contextmanager
def merged(pipeline: Any, files: Sequence[Path]) -> Generator[None]:
    """Add LoRAs to the weights of UNet and text encoder, and take them out again."""
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    targets = lora_targets(parts)
    changed: list[tuple[Tensor, Tensor]] = []
    for file in files:
        for (part, name), factor in read_lora(file, targets).as_factors().items():
            weight = parts[part].get_submodule(name).weight
            changed.append((weight, weight.clone()))
            weight += _delta(factor).view_as(weight)
    try:
        yield
    finally:
        for weight, before in reversed(changed):
            weight.copy_(before)


def _delta(factor: Factor) -> Tensor:
    down, up = factor.down.float(), factor.up.float().flatten(1)
    return factor.scale * torch.einsum("or,ri->oi", up, down.flatten(1))


def _encoded(pipeline: Any, prompt: str, count: int) -> Tensor:
    tokens = pipeline.tokenizer([prompt], padding="max_length", return_tensors="pt").input_ids
    return pipeline.text_encoder(tokens).last_hidden_state.expand(count, -1, -1)


def _instance(lora: str) -> Instance:
    name = instance_name(lora)
    return next(instance for instance in INSTANCES if instance.name == name)
