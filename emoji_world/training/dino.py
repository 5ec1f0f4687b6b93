"""A vision transformer that learns without names to tell one individual from another.

Self-distillation as in DINO (arXiv 2104.14294): a student must give the answer that a slowly
moving teacher gives for another crop of the same picture. Crops are placed so that they keep a
subject, and for half of the pictures the teacher sees the same subjects drawn again at another
place, so that features follow the subjects and not the scenery. Often it is only one of several
subjects that is drawn again: then the answer to a picture of two is half the answer to each, where
it used to be the answer to the more striking of them. Colours change only mildly
between crops: the colour is often what makes the individual. No label is used.
"""

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoji_world.composing.atlas import Atlas
from emoji_world.composing.casting import MIXED, again, cast_scenes
from emoji_world.composing.compose import compose, to_pixels
from emoji_world.scenes import SIDE_PX, WIDE_PX
from emoji_world.training.judge import wear
from emoji_world.training.loop import (
    autocast,
    learning_rate,
    optimizer_of,
    set_rate,
    timed_steps,
)
from emoji_world.training.parts import new_vit
from emoji_world.training.report import say

_PROTOTYPES = 2048
_STUDENT_TEMPERATURE = 0.1
_LOCAL_CROPS = 3
_REST = 0.2
"""Share of the time in which only the head learns, when a body is given."""


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Scenes drawn twice; wide ones are squeezed, as the preprocessor squeezes them.

    Attributes:
        images: uint8 [n, 64, 64, 3].
        twins: The same subjects elsewhere, or one of them, uint8 [n, 64, 64, 3].
        boxes: float32 [n, 3, 4], pixels; zeros where there is no subject.
        nouns: Index into ``NOUNS``, -1 for nobody, [n, 3].
        instances: Index into ``INSTANCES``, -1 for none, [n, 3].
    """

    images: Tensor
    twins: Tensor
    boxes: Tensor
    nouns: Tensor
    instances: Tensor


def _squeezed(images: Tensor) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).float()
    small = functional.interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
    return small.round().byte().permute(0, 2, 3, 1)


def twin_scenes(size: int, atlas: Atlas) -> Twins:
    """Return scenes for the student and the teacher, half of them wide."""
    mixture = replace(MIXED, twice=0.0)
    parts: list[Twins] = []
    for start in range(0, size, 1024):
        width = (SIDE_PX, WIDE_PX)[start // 1024 % 2]
        cast = cast_scenes(min(1024, size - start), atlas, mixture, width)
        made, twin = compose(cast, atlas), compose(again(cast), atlas)
        scale = torch.tensor([SIDE_PX / width, 1, SIDE_PX / width, 1], device=made.boxes.device)
        parts.append(
            Twins(
                images=_squeezed(made.images),
                twins=_squeezed(twin.images),
                boxes=made.boxes * scale,
                nouns=cast.nouns,
                instances=cast.instances,
            )
        )
    return Twins(**{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])})


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 128)
        )
        self.prototypes = nn.utils.parametrizations.weight_norm(
            nn.Linear(128, _PROTOTYPES, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.prototypes(functional.normalize(self.layers(features), dim=-1))


class _Network(nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.head = _Head(128)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels).last_hidden_state[:, 0])


def crop(images: Tensor, centres: Tensor, sides: Tensor) -> Tensor:
    """Return square crops resized to 64×64, half of them mirrored.

    Args:
        images: [n, 3, 64, 64].
        centres: x and y in pixels, [n, 2].
        sides: Side in pixels, [n].
    """
    mirror = torch.where(torch.rand(len(images), device=images.device) < 0.5, -1.0, 1.0)
    matrix = images.new_zeros(len(images), 2, 3)
    matrix[:, 0, 0] = sides / 64 * mirror
    matrix[:, 1, 1] = sides / 64
    matrix[:, :, 2] = centres / 32 - 1
    grid = functional.affine_grid(matrix, [len(images), 3, 64, 64], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _views(images: Tensor, boxes: Tensor, *, local: bool) -> Tensor:
    """Return a random crop of each picture that keeps a subject (local) or all (global)."""
    count, device = len(images), images.device
    real = boxes[:, :, 2] > 0
    if local:
        pick = torch.multinomial(real.float(), 1)[:, 0]
        box = boxes[torch.arange(count, device=device), pick]
    else:
        low = boxes[..., :2].masked_fill(~real[..., None], 64.0).amin(1)
        high = boxes[..., 2:].amax(1)
        box = torch.cat([low, high], 1)
    size = (box[:, 2:] - box[:, :2]).amax(1)
    grow = torch.rand(count, device=device)
    sides = (
        (size * (0.75 + 0.6 * grow)).clamp(16, 64)
        if local
        else 64 - (64 - size).clamp(min=0) * 0.8 * grow
    )
    middle = (box[:, :2] + box[:, 2:]) / 2
    shift = (torch.rand(count, 2, device=device) - 0.5) * 0.3 * size[:, None]
    half = sides[:, None] / 2
    centres = torch.minimum(torch.maximum(middle + shift, half), 64 - half)
    return wear(crop(images, centres, sides))


def train_dino(
    pool: Twins, *, budget_s: float, batch: int, device: torch.device, body: Any = None
) -> Any:
    """Train on twins and return the teacher's body.

    ``body`` is where to go on; it rests until the new head has learnt to read it.
    """
    student = _Network(body or new_vit()).to(device).train()
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = optimizer_of(student.parameters(), weight_decay=0.04)
    resting = list(student.body.parameters()) if body is not None else []
    images, twins, boxes = pool.images, pool.twins, pool.boxes
    centre = torch.zeros(_PROTOTYPES, device=device)
    live, slow = list(student.parameters()), list(teacher.parameters())
    printed = time.monotonic()
    for step, share in timed_steps(budget_s):
        set_rate(optimizer, learning_rate(1e-3, step, share, warmup_steps=500))
        rows = torch.randint(len(images), (batch,), device=device)
        first, second = to_pixels(images[rows]), to_pixels(twins[rows])
        swap = torch.rand(batch, 1, 1, 1, device=device) < 0.5
        second, kept = torch.where(swap, second, first), boxes[rows]
        # Twins are laid out anew; whole pictures are the crops that surely keep the subjects.
        first_view = _views(first, kept, local=False)
        middle, sides = (
            torch.full((batch, 2), 32.0, device=device),
            64 - 8 * torch.rand(batch, device=device),
        )
        second_view = wear(crop(second, middle, sides))
        locals_ = [_views(first, kept, local=True) for _ in range(_LOCAL_CROPS)]
        with autocast(device):
            with torch.no_grad():
                answers = teacher(torch.cat([first_view, second_view])).float()
            guesses = student(torch.cat([first_view, second_view, *locals_])).float()
        temperature = 0.04 + 0.02 * min(1.0, share / 0.3)
        targets = ((answers - centre) / temperature).softmax(-1).chunk(2)
        logs = (guesses / _STUDENT_TEMPERATURE).log_softmax(-1).chunk(2 + _LOCAL_CROPS)
        losses = [
            -(target * log).sum(-1).mean()
            for t, target in enumerate(targets)
            for s, log in enumerate(logs)
            if s != t
        ]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in resting if share < _REST else ():
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(live, 1.0)
        optimizer.step()
        with torch.no_grad():
            centre.lerp_(answers.mean(0), 0.1)
            for kept, learnt in zip(slow, live, strict=True):
                kept.lerp_(learnt, 0.004 * (1 - share) + 0.0005)
        if time.monotonic() - printed > 20:
            printed = time.monotonic()
            usage = torch.cat(targets).mean(0)
            spread = (usage * (usage + 1e-9).log()).sum().exp()
            say(
                f"dino step {step} ({share:.0%}): loss {loss.item():.3f}, "
                f"prototypes in use {(1 / spread).item():.0f}"
            )
    return teacher.body.eval()


@torch.no_grad()
def features(vit: Any, pixels: Tensor) -> Tensor:
    """Return unit class-token features [n, width] of pictures in [-1, 1]."""
    return functional.normalize(vit(pixels).last_hidden_state[:, 0].float(), dim=-1)


def retrieval(vit: Any, pool: Twins) -> tuple[float, float]:
    """Return how well individuals are told apart in scenes with one subject.

    Half of every individual's scenes make its centroid. Returns the share of the other scenes whose
    nearest centroid, first among instances of the same class and second among all instances, is
    their own.
    """
    alone = (pool.nouns[:, 1] < 0) & (pool.instances[:, 0] >= 0)
    pictures = to_pixels(pool.images[alone])
    found = torch.cat([features(vit, part) for part in pictures.split(512)])
    who, kind = pool.instances[alone, 0], pool.nouns[alone, 0]
    names = who.unique()
    hold = torch.arange(len(found), device=found.device) % 2 == 1
    centroids = torch.stack([found[(who == n) & ~hold].mean(0) for n in names])
    nouns = torch.stack([kind[who == n][0] for n in names])
    similar = found[hold] @ centroids.T
    truth = who[hold]
    everywhere = (names[similar.argmax(1)] == truth).float().mean().item()
    rival = kind[hold][:, None] == nouns[None, :]
    contested = rival.sum(1) > 1
    inside = names[similar.masked_fill(~rival, -9).argmax(1)] == truth
    return inside[contested].float().mean().item(), everywhere


def save_dino(vit: Any, folder: Path) -> None:
    """Write the model, fp16, with the preprocessor that readers need."""
    from transformers import ViTImageProcessor

    copy.deepcopy(vit).half().save_pretrained(folder)
    ViTImageProcessor(
        size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
