"""Trains the judge on drawn scenes, worn the way generated pictures are: blur, noise, colour.

A subject of which at least ``_SURE_SHARE`` is left is recognisable; an instance is clearly itself
from ``_SELF_SHARE``. What is between these and the lower bounds is not judged: people differ there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import INSTANCES, LABELS, NOUNS
from emoji_world.composing.blends import Evidence
from emoji_world.composing.compose import to_pixels
from emoji_world.presence import PresenceNet, image_logits
from emoji_world.training.loop import (
    Average,
    autocast,
    learning_rate,
    optimizer_of,
    set_rate,
    timed_steps,
)
from emoji_world.training.report import say

_GONE_SHARE, _SURE_SHARE = 0.3, 0.6
_UNLIKE_SHARE, _SELF_SHARE = 0.65, 0.85
_INDIVIDUALS = tuple(instance.name for instance in INSTANCES)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about n pictures, cells of 8 px.

    Attributes:
        yes: Whether a label is in the cell, [n, label, 8, cells].
        judged: Whether that is certain, [n, label, 8, cells].
        copies: How many there surely are, [n, label].
        counted: Whether that is certain, [n, label].
    """

    yes: Tensor
    judged: Tensor
    copies: Tensor
    counted: Tensor


def question(
    labels: Tensor, shares: Tensor, cover: Tensor, names: int, *, low: float, high: float
) -> Question:
    """Return what is there for sure and what is uncertain.

    Args:
        labels: Label of each subject, -1 for none, [n, subject].
        shares: How much of it is left, [n, subject].
        cover: Its cover in 1/255, uint8 [n, subject, 16, cells].
        names: How many labels there are.
        low: Share up to which it is not there.
        high: Share from which it is.
    """
    cells = functional.avg_pool2d(cover.float() / 255, 2)
    index = labels.where(labels >= 0, names)
    spread = index[:, :, None, None].expand_as(cells)

    def anywhere(least: float) -> Tensor:
        blank = cells.new_zeros(len(cells), names + 1, *cells.shape[2:])
        seen = cells * (shares >= least)[:, :, None, None]
        return blank.scatter_reduce(1, spread, seen, "amax")[:, :-1]

    def how_many(least: float) -> Tensor:
        blank = cells.new_zeros(len(cells), names + 1)
        return blank.scatter_add(1, index, (shares >= least).float())[:, :-1]

    sure, perhaps = anywhere(high), anywhere(low)
    yes = (sure > 0.5).float()
    return Question(
        yes=yes,
        judged=((sure > 0.5) | (perhaps < 0.15)).float(),
        copies=how_many(high),
        counted=(how_many(high) == how_many(low)).float(),
    )


def _answer_loss(logits: Tensor, asked: Question) -> Tensor:
    """Return the loss of logits [n, label, 8, cells]: of the cells and of the whole picture."""
    cells = functional.binary_cross_entropy_with_logits(logits, asked.yes, reduction="none")
    whole = functional.binary_cross_entropy_with_logits(
        image_logits(logits), (asked.copies > 0).float(), reduction="none"
    )
    return (cells * asked.judged).mean() * 2 + (whole * asked.counted).mean()


def questions(rows: Evidence) -> tuple[Question, Question, Question]:
    """Return what nouns and instances are recognisable, and which instance is clearly itself."""
    nouns = question(
        rows.nouns, rows.noun_shares, rows.cover, len(NOUNS), low=_GONE_SHARE, high=_SURE_SHARE
    )
    own, shares = rows.instances, rows.instance_shares
    like = question(own, shares, rows.cover, len(INSTANCES), low=_GONE_SHARE, high=_SURE_SHARE)
    itself = question(own, shares, rows.cover, len(INSTANCES), low=_UNLIKE_SHARE, high=_SELF_SHARE)
    return nouns, like, itself


def _both(one: Question, two: Question) -> Question:
    return Question(
        **{name: torch.cat([getattr(one, name), getattr(two, name)], 1) for name in vars(one)}
    )


def wear(pixels: Tensor) -> Tensor:
    """Return pictures blurred, noisy and off in colour, each in its own measure."""
    count, device = len(pixels), pixels.device

    def some(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, device=device) * (high - low) + low

    height, width = pixels.shape[2:]
    coarse = (height * 5 // 8, width * 5 // 8)
    small = functional.interpolate(pixels, size=coarse, mode="bilinear", antialias=True)
    soft = functional.interpolate(small, size=(height, width), mode="bilinear")
    blur = some(0, 1) * (some(0, 1) < 0.5)
    pixels = pixels + blur * (soft - pixels)
    gain = 1 + 0.12 * torch.randn(count, 3, 1, 1, device=device) * (some(0, 1) < 0.5)
    pixels = pixels * some(0.85, 1.2) * gain + some(-0.1, 0.1)
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * some(0.75, 1.35)
    return (pixels + torch.randn_like(pixels) * some(0, 0.12)).clamp(-1, 1)


def _rows(pool: Evidence, rows: Tensor | slice) -> Evidence:
    return Evidence(**{name: tensor[rows] for name, tensor in vars(pool).items()})


def new_judge() -> PresenceNet:
    """Return an untrained judge of this world."""
    return PresenceNet(LABELS, PLACES, individuals=_INDIVIDUALS)


def train_judge(
    pools: Sequence[Evidence],
    *,
    budget_s: float,
    batch: int,
    device: torch.device,
    start: PresenceNet | None = None,
) -> PresenceNet:
    """Train on pools, one of each width, and return the averaged network.

    What ``start`` has learnt is taken over, of a judge with fewer answers those that it gives.
    """
    net = new_judge().to(device)
    if start is not None:
        net.load_state_dict(start.state_dict(), strict=False)
    net.to(memory_format=torch.channels_last)  # pyright: ignore
    optimizer = optimizer_of(net.parameters(), weight_decay=0.02)
    average = Average(net, 0.998)
    held = min(2048, len(pools[0].images) // 4)
    printed = time.monotonic()
    step = 0
    for step, share in timed_steps(budget_s):
        set_rate(optimizer, learning_rate(2e-3, step, share))
        pool = pools[step % len(pools)]
        rows = _rows(pool, torch.randint(held, len(pool.images), (batch,), device=device))
        with autocast(device):
            seen = net(wear(to_pixels(rows.images)))
        nouns, like, itself = questions(rows)
        present = _both(nouns, like)
        counts = seen.copies.float().sum((2, 3))
        miscounted = functional.smooth_l1_loss(counts, present.copies, reduction="none", beta=0.5)
        loss = (
            _answer_loss(seen.things.float(), present)
            + _answer_loss(seen.individuals.float(), itself)
            + 2 * (miscounted * present.counted).mean()
            + 0.1 * functional.cross_entropy(seen.places.float(), rows.places)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update()
        if time.monotonic() - printed > 15:
            printed = time.monotonic()
            say(f"judge step {step} ({share:.0%}): loss {loss.item():.4f}")
    average.swap()
    say(f"judge ends after {step + 1} steps of {batch}")
    for pool in pools:
        _report(net, _rows(pool, slice(0, held)))
    return net


@torch.no_grad()
def _report(net: PresenceNet, rows: Evidence) -> None:
    """Print recall and false alarms of every answer where it is certain, and of the counts."""
    parts = [net(to_pixels(part)) for part in rows.images.split(256)]
    things, individuals, copies, _ = (torch.cat(x) for x in zip(*parts, strict=True))
    nouns, like, itself = questions(rows)
    present = _both(nouns, like)
    width = rows.images.shape[2]
    for name, logits, asked in (("present", things, present), ("identity", individuals, itself)):
        seen, truth = image_logits(logits) > 0, asked.copies > 0
        sure = asked.counted > 0
        recall = (seen & truth & sure).sum(0) / (truth & sure).sum(0).clamp(min=1)
        alarms = (seen & ~truth & sure).sum(0) / (~truth & sure).sum(0).clamp(min=1)
        say(
            f"judge at {width} px, {name}: recall mean {recall.mean():.4f} min {recall.min():.4f}, "
            f"false alarms mean {alarms.mean():.4f} max {alarms.max():.4f}"
        )
    there = (present.copies > 0) & (present.counted > 0)
    right = copies.sum((2, 3)).round() == present.copies
    many = there & (present.copies > 1)
    say(
        f"judge at {width} px, counts: right {right[there].float().mean():.4f}, "
        f"of doubles {right[many].float().mean():.4f}"
    )
