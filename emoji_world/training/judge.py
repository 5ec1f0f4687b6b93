"""Trains the judge on drawn scenes, worn the way generated pictures are: blur, noise, colour."""

import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.backgrounds import PLACES
from emoji_world.presence import PresenceNet, image_logits
from emoji_world.training.loop import (
    Average,
    autocast,
    learning_rate,
    optimizer_of,
    set_rate,
    timed_steps,
    to_pixels,
)
from emoji_world.training.pools import LABELS, Pool
from emoji_world.training.report import say


def label_targets(pool: Pool) -> Tensor:
    """Return what is in each scene, zeros and ones, float [n, label]."""
    labels = torch.from_numpy(pool.labels).long().flatten(1)
    targets = torch.zeros(len(labels), len(LABELS) + 1)
    targets.scatter_(1, labels.where(labels >= 0, len(LABELS)), 1.0)
    return targets[:, :-1]


def _cell_targets(labels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return per 8×8 cell what is there and whether to judge the cell, [n, label, 8, 8]."""
    cover = functional.avg_pool2d(masks.float() / 255, 2)  # [n, subject, 8, 8]
    targets = cover.new_zeros(len(cover), len(LABELS) + 1, 8, 8)
    index = labels.where(labels >= 0, len(LABELS)).long()  # [n, subject, 2]
    for kind in range(2):
        spread = index[:, :, kind, None, None].expand(-1, -1, 8, 8)
        targets.scatter_reduce_(1, spread, cover, "amax")
    targets = targets[:, :-1]
    return (targets > 0.5).float(), ((targets > 0.5) | (targets < 0.15)).float()


def wear(pixels: Tensor) -> Tensor:
    """Return pictures blurred, noisy and off in colour, each in its own measure."""
    count, device = len(pixels), pixels.device

    def some(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device) * (high - low) + low

    small = functional.interpolate(pixels, size=40, mode="bilinear", antialias=True)
    soft = functional.interpolate(small, size=64, mode="bilinear")
    blur = some(0, 1) * (some(0, 1) < 0.5)
    pixels = pixels + blur * (soft - pixels)
    gain = 1 + 0.12 * torch.randn(count, 3, 1, 1, device=device) * (some(0, 1) < 0.5)
    pixels = pixels * some(0.85, 1.2) * gain + some(-0.1, 0.1)
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * some(0.75, 1.35)
    return (pixels + torch.randn_like(pixels) * some(0, 0.12)).clamp(-1, 1)


def train_judge(
    pool: Pool, *, budget_s: float, batch: int, device: torch.device, work: Path
) -> PresenceNet:
    """Train on a pool with instances and return the averaged network."""
    net = PresenceNet(LABELS, PLACES).to(device)
    optimizer = optimizer_of(net.parameters(), weight_decay=0.02)
    average = Average(net, 0.998)
    images = torch.from_numpy(pool.images).to(device)
    masks = torch.from_numpy(pool.masks).to(device)
    labels = torch.from_numpy(pool.labels).to(device)
    places = torch.from_numpy(pool.places).long().to(device)
    targets = label_targets(pool).to(device)
    size = len(images) - min(2048, len(images) // 4)
    printed = time.monotonic()
    for step, share in timed_steps(budget_s):
        set_rate(optimizer, learning_rate(2e-3, step, share))
        rows = torch.randint(size, (batch,), device=device)
        with autocast(device):
            things, place = net(wear(to_pixels(images[rows])))
        things, place = things.float(), place.float()
        present, judged = _cell_targets(labels[rows], masks[rows])
        cells = functional.binary_cross_entropy_with_logits(things, present, reduction="none")
        loss = (
            functional.binary_cross_entropy_with_logits(image_logits(things), targets[rows])
            + (cells * judged).mean() * 2
            + 0.1 * functional.cross_entropy(place, places[rows])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update()
        if time.monotonic() - printed > 20:
            printed = time.monotonic()
            say(f"judge step {step} ({share:.0%}): loss {loss.item():.4f}")
    average.swap()
    with torch.no_grad():
        things, place = net(to_pixels(images[size:]))
        seen = image_logits(things) > 0
        truth = targets[size:] > 0.5
        recall = (seen & truth).sum(0) / truth.sum(0).clamp(min=1)
        alarms = (seen & ~truth).sum(0) / (~truth).sum(0).clamp(min=1)
        say(
            f"judge: recall mean {recall.mean():.4f} min {recall.min():.4f}, false alarms max "
            f"{alarms.max():.4f}, places {(place.argmax(1) == places[size:]).float().mean():.4f}"
        )
    torch.save(net.state_dict(), work / "judge_final.pt")
    return net
