"""The one generator of scenes: training, reference pictures and tests all draw from it.

A scene is a place with up to three subjects side by side, standing on the ground. It is drawn
from a numpy generator alone, so a seed names a scene for good. Boxes and masks of the subjects
come with it: attention is taught with them and judges are trained on them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoji_world.artwork import Sprites, recolour, turn_hue
from emoji_world.backgrounds import PLACES, draw_background
from emoji_world.bestiary import CLASSES, NOUNS, Instance

SIDE_PX = 64
"""Height of every picture, and width of a square one."""
WIDE_PX = 96
"""Width of a wide picture: three subjects on it are as large as two on a square one."""
CELL_PX = 4
"""Side of a cell of the masks: the resolution at which the model attends."""
MAP_SIDE = SIDE_PX // CELL_PX

# Centres (share of the width) of subjects, by how many there are.
CENTRES: dict[int, tuple[float, ...]] = {1: (0.5,), 2: (0.26, 0.74), 3: (0.18, 0.5, 0.82)}
# Longest side of a subject as a share of the height, by the width and how many there are.
LONGEST: dict[tuple[int, int], tuple[float, float]] = {
    (SIDE_PX, 1): (0.44, 0.64),
    (SIDE_PX, 2): (0.38, 0.5),
    (SIDE_PX, 3): (0.28, 0.34),
    (WIDE_PX, 1): (0.44, 0.66),
    (WIDE_PX, 2): (0.42, 0.6),
    (WIDE_PX, 3): (0.38, 0.48),
}
FEET = (0.8, 0.97)
"""Where subjects stand, as a share of the height."""

Random = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something to draw: its noun, the sprite that shows it, its instance if it is one."""

    noun: str
    sprite: str
    instance: str | None = None
    trigger: str | None = None
    tint: tuple[float, float, float] | None = None
    hue_turn: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: RGB uint8 [64, width, 3].
        place: Name of the background.
        subjects: From left to right.
        boxes: Left, top, right, bottom of each subject in pixels, float32 [subject, 4].
        masks: Share of each 4×4 px cell that the subject covers, float32 [subject, 16, width / 4].
    """

    image: NDArray[np.uint8]
    place: str
    subjects: tuple[Subject, ...]
    boxes: NDArray[np.float32]
    masks: NDArray[np.float32]


def of_instance(instance: Instance) -> Subject:
    """Return the subject that shows a held-out instance."""
    return Subject(
        noun=instance.noun,
        sprite=instance.design.key,
        instance=instance.name,
        trigger=instance.trigger,
    )


def of_class(noun: str, random: Random) -> Subject:
    """Return a subject of a class in one of its designs."""
    designs = CLASSES[noun]
    return Subject(noun=noun, sprite=designs[random.integers(len(designs))].key)


def random_subjects(count: int, random: Random, *, without: str = "") -> list[Subject]:
    """Return ``count`` class subjects of different nouns, none of them ``without``."""
    nouns = [noun for noun in NOUNS if noun != without]
    return [of_class(str(noun), random) for noun in random.choice(nouns, count, replace=False)]


def draw_scene(
    subjects: list[Subject],
    sprites: Sprites,
    random: Random,
    *,
    place: str | None = None,
    width_px: int = SIDE_PX,
) -> Scene:
    """Draw subjects from left to right at a place, a random one unless named.

    Raises:
        ValueError: There are no subjects or more than three, or the width is none of the two.
    """
    if len(subjects) not in CENTRES:
        raise ValueError(f"a scene holds 1 to 3 subjects, got {len(subjects)}")
    if width_px not in (SIDE_PX, WIDE_PX):
        raise ValueError(f"a scene is {SIDE_PX} or {WIDE_PX} px wide, got {width_px}")
    place = place or str(random.choice(PLACES))
    canvas = draw_background(place, SIDE_PX, random, width_px=width_px).astype(np.float32)
    longest = LONGEST[width_px, len(subjects)]
    boxes = np.zeros((len(subjects), 4), np.float32)
    masks = np.zeros((len(subjects), MAP_SIDE, width_px // CELL_PX), np.float32)
    for index, (subject, centre) in enumerate(zip(subjects, CENTRES[len(subjects)], strict=True)):
        sprite = _fit(sprites[subject.sprite], random.uniform(*longest) * SIDE_PX, subject, random)
        height, width = sprite.shape[:2]
        spread = spread_of(len(subjects))
        left = round(width_px * (centre + random.uniform(-spread, spread)) - width / 2)
        left = min(max(left, 0), width_px - width)
        top = max(0, round(SIDE_PX * random.uniform(*FEET)) - height)
        window = canvas[top : top + height, left : left + width]
        alpha = sprite[..., 3:].astype(np.float32) / 255
        _shadow(canvas, left, top, width, height)
        window[:] = window * (1 - alpha) + sprite[..., :3] * alpha
        boxes[index] = left, top, left + width, top + height
        cover = np.zeros((SIDE_PX, width_px), np.float32)
        cover[top : top + height, left : left + width] = alpha[..., 0]
        masks[index] = cover.reshape(MAP_SIDE, CELL_PX, -1, CELL_PX).mean((1, 3))
    image = canvas.round().clip(0, 255).astype(np.uint8)
    return Scene(image=image, place=place, subjects=tuple(subjects), boxes=boxes, masks=masks)


def spread_of(count: int) -> float:
    """Return how far subjects stray from their centres to either side, as a share of the width."""
    return 0.06 if count == 1 else 0.02


def _fit(
    sprite: NDArray[np.uint8], longest_px: float, subject: Subject, random: Random
) -> NDArray[np.uint8]:
    """Scale a sprite to its longest side, mirror half of them, vary a class's hues a little."""
    height, width = sprite.shape[:2]
    scale = longest_px / max(height, width)
    size = (max(4, round(width * scale)), max(4, round(height * scale)))
    # Pillow weighs colours by alpha while it scales, so transparent pixels bleed none in.
    fitted = np.asarray(Image.fromarray(sprite).resize(size, Image.Resampling.BOX))
    # Always the same draws: whoever stands here, the rest of the scene stays as it is.
    mirror, jitter, turn = random.random(), random.random(), random.uniform(-0.04, 0.04)
    if mirror < 0.5:
        fitted = fitted[:, ::-1]
    if subject.tint is not None or subject.hue_turn:
        fitted = recolour(fitted, subject.hue_turn, subject.tint)
    elif subject.instance is None and jitter < 0.25:
        fitted = fitted.copy()
        rgb = fitted[..., :3].astype(np.float32) / 255
        fitted[..., :3] = (turn_hue(rgb, turn) * 255).round()
    return fitted


def _shadow(canvas: NDArray[np.float32], left: int, top: int, width: int, height: int) -> None:
    """Darken a flat ellipse under the subject, which seats it on the ground."""
    first = max(0, top + height - 6)
    band = canvas[first : top + height + 6]
    x = (np.arange(canvas.shape[1], dtype=np.float32) - left - width / 2 + 0.5) / (0.46 * width)
    y = (first + np.arange(len(band), dtype=np.float32) - (top + height) + 1) / 2.2
    band *= 1 - 0.22 * np.clip(1.4 - np.hypot(x[None, :], y[:, None]), 0, 1)[..., None]
