"""Drawn scenes of several instances, and of every way to fall short of them that is known.

A composed picture fails by blending its subjects into each other, by showing one of them twice, by
showing another of the class in place of one, or by leaving one out. Each is drawn here on purpose,
so what a score makes of it is measured against what was drawn and not against an opinion.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from emoji_world.artwork import SPRITE_SIDE_PX, Sprites
from emoji_world.bestiary import INSTANCES, Instance
from emoji_world.scenes import Subject, draw_scene, of_class, of_instance

ALL_THERE = "all there"
BLEND_WAYS = ("halves", "checkers", "mixed")
FAILURES = (*(f"blended, {way}" for way in BLEND_WAYS), "one twice", "a stand-in", "one missing")
"""Ways in which a scene falls short of its instances; a blend is of two, each in its own place."""

_CHECKER_PX = 12
_INK_ALPHA = 40

Random = np.random.Generator


def instance_sets(count: int, number: int, seed: int) -> list[tuple[Instance, ...]]:
    """Return ``number`` different sets of ``count`` instances of different nouns, at random."""
    possible = [
        chosen
        for chosen in combinations(INSTANCES, count)
        if len({instance.noun for instance in chosen}) == count
    ]
    order = np.random.default_rng(seed).permutation(len(possible))[:number]
    return [possible[place] for place in order]


def draw_case(
    instances: tuple[Instance, ...], case: str, sprites: Sprites, random: Random
) -> NDArray[np.uint8]:
    """Return the image of a scene of two or three instances.

    Args:
        instances: What should be there; they stand in random order, and which of them a failure
            is about is random as well.
        case: ``ALL_THERE`` or one of ``FAILURES``.
        sprites: Of all designs.
        random: Decides the rest of the scene.

    Raises:
        ValueError: There is no such case.
    """
    chosen = [instances[place] for place in random.permutation(len(instances))]
    subjects = [of_instance(instance) for instance in chosen]
    if case == "one twice":
        subjects[0] = subjects[1]
    elif case == "a stand-in":
        subjects[0] = of_class(chosen[0].noun, random)
    elif case == "one missing":
        del subjects[0]
    elif case in FAILURES:
        way = case.removeprefix("blended, ")
        one, two = (sprites[subject.sprite] for subject in subjects[:2])
        sprites = {**sprites, "blend": blend(one, two, way), "counter": blend(two, one, way)}
        # Named as instances, so that they keep their colours as instances do.
        subjects[:2] = [
            Subject(noun=subject.noun, sprite=sprite, instance=sprite)
            for subject, sprite in zip(subjects, ("blend", "counter"), strict=False)
        ]
    elif case != ALL_THERE:
        raise ValueError(f"case should be {ALL_THERE!r} or one of {FAILURES}, got {case!r}")
    order = random.permutation(len(subjects))
    return draw_scene([subjects[place] for place in order], sprites, random).image


def blend(one: NDArray[np.uint8], two: NDArray[np.uint8], way: str) -> NDArray[np.uint8]:
    """Return one sprite of two, RGBA, standing on one ground and cropped to its ink.

    Args:
        one: RGBA [height, width, 4], no side longer than ``SPRITE_SIDE_PX``.
        two: Likewise.
        way: ``halves`` (left and right), ``checkers`` or ``mixed`` (the mean of the two).
    """
    y, x = np.mgrid[:SPRITE_SIDE_PX, :SPRITE_SIDE_PX]
    share = {
        "halves": (x < SPRITE_SIDE_PX // 2).astype(np.float32),
        "checkers": ((x // _CHECKER_PX + y // _CHECKER_PX) % 2).astype(np.float32),
        "mixed": np.full(x.shape, 0.5, np.float32),
    }[way]
    weights = np.stack([share, 1 - share])[..., None]
    canvases = np.stack([_on_canvas(one), _on_canvas(two)])
    ink = weights * canvases[..., 3:]
    alpha = ink.sum(axis=0)
    colours = (ink * canvases[..., :3]).sum(axis=0) / np.maximum(alpha, 1e-6)
    mixed = np.concatenate([colours, alpha], axis=2).round().clip(0, 255).astype(np.uint8)
    inked = np.argwhere(mixed[..., 3] > _INK_ALPHA)
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
    return mixed[top:bottom, left:right]


def _on_canvas(sprite: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the sprite in the middle of the bottom of a transparent square."""
    canvas = np.zeros((SPRITE_SIDE_PX, SPRITE_SIDE_PX, 4), np.float32)
    height, width = sprite.shape[:2]
    left = (SPRITE_SIDE_PX - width) // 2
    canvas[SPRITE_SIDE_PX - height :, left : left + width] = sprite
    return canvas
