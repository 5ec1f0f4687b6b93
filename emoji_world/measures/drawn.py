"""Figures on drawn scenes: autoencoder, judge, DINO retrieval, and where attention points."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clora_core.dino import DinoScorer
from emoji_world.artwork import load_sprites
from emoji_world.bestiary import INSTANCES, LABELS
from emoji_world.composing.compose import to_pixels
from emoji_world.measures.composed import EVALUATION_PAIRS, VALIDATION_PAIRS
from emoji_world.measures.pools import Pool, any_subjects, base_subjects, draw_pool
from emoji_world.measures.table import Figure, of_mean, of_share
from emoji_world.presence import PresenceNet, judge
from emoji_world.scenes import SIDE_PX, WIDE_PX, Subject, draw_scene, of_class, of_instance
from emoji_world.training.attention import AttentionRecorder
from emoji_world.training.parts import new_scheduler

_SEED = 777
_CELL_PX = 4


def drawn_figures(
    pipeline: Any, net: PresenceNet, dino: DinoScorer, *, cache: Path, tokenizer: Path, scenes: int
) -> list[Figure]:
    """Measure on ``scenes`` fresh drawn scenes.

    Args:
        pipeline: A diffusers ``StableDiffusionPipeline`` of the base model.
        net: The judge.
        dino: The scoring model.
        cache: Folder of the artwork.
        tokenizer: Folder of the tokenizer.
        scenes: Scenes a figure.
    """
    mixed = draw_pool(any_subjects, scenes, seed=_SEED, cache=cache)
    wide = draw_pool(any_subjects, scenes, seed=_SEED, cache=cache, width_px=WIDE_PX)
    plain = draw_pool(
        base_subjects,
        scenes,
        seed=_SEED + 1,
        cache=cache,
        tokenizer=tokenizer,
        captions=1,
        strange=0.0,
    )
    return [
        _psnr(pipeline.vae, mixed, SIDE_PX),
        _psnr(pipeline.vae, wide, WIDE_PX),
        *_judge_figures(net, mixed, SIDE_PX),
        *_judge_figures(net, wide, WIDE_PX),
        *_retrieval(dino, draw_pool(lone_instance, scenes, seed=_SEED + 2, cache=cache)),
        _both_told(dino, cache, scenes),
        *(
            figure
            for level, aim in ((200, "≥ 0.95"), (600, "≥ 0.90"), (800, "≥ 0.75"))
            for figure in _pointing(pipeline, plain, level, aim)
        ),
    ]


@torch.no_grad()
def _psnr(vae: Any, pool: Pool, width_px: int) -> Figure:
    decibels: list[float] = []
    for part in torch.from_numpy(pool.images).split(32):
        pixels = to_pixels(part)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        errors = (decoded - pixels).square().mean((1, 2, 3))
        decibels += (10 * torch.log10(4 / errors)).tolist()
    return of_mean(f"autoencoder PSNR, dB, mean over scenes {width_px} px wide", decibels, "≥ 28")


def lone_instance(random: np.random.Generator) -> list[Subject]:
    """Return one instance."""
    return [of_instance(INSTANCES[random.integers(len(INSTANCES))])]


def _judge_figures(net: PresenceNet, pool: Pool, width_px: int) -> list[Figure]:
    seen = np.array(
        [
            [verdict.present[label] > 0.5 for label in LABELS]
            for start in range(0, len(pool.images), 64)
            for verdict in judge(net, list(pool.images[start : start + 64]))
        ]
    )
    truth = np.zeros_like(seen)
    for row, labels in enumerate(pool.labels.reshape(len(truth), -1)):
        truth[row, labels[labels >= 0]] = True
    there = [k for k in range(len(LABELS)) if truth[:, k].any()]
    hits = {k: seen[truth[:, k], k] for k in there}
    alarms = {k: seen[~truth[:, k], k] for k in range(len(LABELS))}
    missed = min(hits, key=lambda k: float(hits[k].mean()))
    invented = max(alarms, key=lambda k: float(alarms[k].mean()))
    return [
        of_mean(
            f"judge: recall on drawn scenes {width_px} px wide, mean over labels",
            [h.mean() for h in hits.values()],
        ),
        of_share(f"judge: recall of its worst label, {LABELS[missed]}", hits[missed], "≥ 0.97"),
        of_share(
            f"judge: false alarms, worst label, {LABELS[invented]}", alarms[invented], "≤ 0.02"
        ),
    ]


def _retrieval(dino: DinoScorer, pool: Pool) -> list[Figure]:
    """Nearest centroid among the instances of the class, and among all; one subject a scene."""
    alone = np.arange(len(pool.labels))
    features = np.concatenate(
        [
            dino.features(list(pool.images[part]))
            for part in np.array_split(alone, len(alone) // 64 + 1)
        ]
    )
    names = [LABELS[k] for k in pool.labels[alone, 0, 1]]
    nouns = {instance.name: instance.noun for instance in INSTANCES}
    held_out = np.arange(len(names)) % 2 == 1
    centroids: dict[str, NDArray[np.float32]] = {
        name: features[[n == name and not h for n, h in zip(names, held_out, strict=True)]].mean(0)
        for name in set(names)
    }
    within: list[bool] = []
    among_all: list[bool] = []
    for feature, name in zip(features[held_out], np.array(names)[held_out], strict=True):
        near = {other: float(feature @ centroid) for other, centroid in centroids.items()}
        rivals = [other for other in near if nouns[other] == nouns[name]]
        if len(rivals) > 1:
            within.append(max(rivals, key=near.__getitem__) == name)
        among_all.append(max(near, key=near.__getitem__) == name)
    return [
        of_share("DINO: own instance before others of its class", within, "≥ 0.90"),
        of_share("DINO: own instance before all others", among_all, "≥ 0.90"),
    ]


def _both_told(dino: DinoScorer, cache: Path, scenes: int) -> Figure:
    """Return how often the lower of two scores puts a scene with both instances first.

    Against scenes in which one of the two is another of its class: the area under the curve, which
    says what min-DINO can tell at best.
    """
    sprites = load_sprites(cache)
    random = np.random.default_rng(_SEED + 3)
    known = {instance.name: instance for instance in INSTANCES}
    pairs = (*VALIDATION_PAIRS, *EVALUATION_PAIRS)
    centroids = {
        instance.name: dino.features(
            [draw_scene([of_instance(instance)], sprites, random).image for _ in range(24)]
        ).mean(0)
        for instance in INSTANCES
    }

    def lower_score(*, stand_in: bool) -> float:
        pair = pairs[random.integers(len(pairs))]
        one, two = (known[name] for name in pair)
        first = of_class(one.noun, random) if stand_in else of_instance(one)
        subjects = [first, of_instance(two)][:: int(random.choice([1, -1]))]
        (feature,) = dino.features([draw_scene(subjects, sprites, random).image])
        return min(float(feature @ centroids[name]) for name in pair)

    without = np.array([lower_score(stand_in=True) for _ in range(scenes)])
    ranks = [float((lower_score(stand_in=False) > without).mean()) for _ in range(scenes)]
    return of_mean("DINO: lower score of two, both before a stand-in for one", ranks)


@torch.no_grad()
def _pointing(pipeline: Any, pool: Pool, level: int, aim: str) -> list[Figure]:
    """Whether the peak of a noun's map lies in its subject's box, scenes with two subjects.

    Taken twice: strictly, and with the tolerance of one cell of the map (4 px) that the masks
    attention was taught with have.
    """
    two = np.flatnonzero((pool.labels[:, 1, 0] >= 0) & (pool.labels[:, 2, 0] < 0))[:256]
    alpha = new_scheduler().alphas_cumprod[level]
    generator = torch.Generator().manual_seed(level)
    recorder = AttentionRecorder(pipeline.unet)
    strict: list[bool] = []
    near: list[bool] = []
    try:
        for part in np.array_split(two, len(two) // 32 + 1):
            clean = pipeline.vae.encode(
                to_pixels(torch.from_numpy(pool.images[part]))
            ).latent_dist.mean
            noise = torch.randn(clean.shape, generator=generator)
            tokens = torch.from_numpy(pool.tokens[part, 0]).long()
            text = pipeline.text_encoder(tokens).last_hidden_state
            recorder.maps.clear()
            pipeline.unet(alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, level, text)
            maps = torch.stack(recorder.maps).mean(0)
            for row, scene in enumerate(part):
                for token in np.flatnonzero(pool.token_subjects[scene, 0]):
                    box = pool.boxes[scene, pool.token_subjects[scene, 0, token] - 1]
                    peak = int(maps[row, :, token].argmax())
                    x, y = (peak % 16 + 0.5) * 4, (peak // 16 + 0.5) * 4
                    outside = max(box[0] - x, x - box[2], box[1] - y, y - box[3])
                    strict.append(bool(outside <= 0))
                    near.append(bool(outside <= _CELL_PX))
    finally:
        recorder.close()
    return [
        of_share(f"attention peak in its subject's box, noise {level} of 1000", strict, aim),
        of_share(f"the same, within one cell of the map, noise {level}", near),
    ]
