"""Six procedural places, drawn at twice the size and halved, so that edges are smooth.

Every place is a function of a random generator: colours, horizon and props vary a little, and
what makes the place recognisable (sand and sea, trunks, road, peaks, wall and floor, snow)
stays. Colours are paler than the subjects', which keeps subjects readable at 64 pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SCALE = 2

Random = np.random.Generator
Colour = tuple[int, int, int]


def draw_background(
    place: str, side_px: int, random: Random, *, width_px: int | None = None
) -> NDArray[np.uint8]:
    """Return the picture of a place, RGB [side_px, width_px, 3]: a square one, or that stretched.

    Raises:
        KeyError: The place is none of ``PLACES``.
    """
    side = side_px * _SCALE
    picture = Image.new("RGB", (side, side))
    _PAINTERS[place](ImageDraw.Draw(picture), side, random)
    return np.asarray(picture.resize((width_px or side_px, side_px), Image.Resampling.BOX))


def _vary(colour: Colour, random: Random, spread: float = 10) -> Colour:
    red, green, blue = (np.array(colour) + random.normal(0, spread * 0.5, 3)).clip(0, 255)
    return int(red), int(green), int(blue)


def _gradient(
    draw: ImageDraw.ImageDraw, side: int, top: float, bottom: float, above: Colour, below: Colour
) -> None:
    start, end = round(top * side), round(bottom * side)
    for y in range(start, end):
        share = (y - start) / max(end - start - 1, 1)
        mixed = tuple(round(a + (b - a) * share) for a, b in zip(above, below, strict=True))
        draw.line([(0, y), (side, y)], fill=mixed)


def _blob(
    draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Colour
) -> None:
    draw.ellipse([x - rx, y - ry, x + rx, y + ry], fill=fill)


def _clouds(draw: ImageDraw.ImageDraw, side: int, random: Random, fill: Colour) -> None:
    for _ in range(random.integers(0, 3)):
        x, y = random.uniform(0, side), random.uniform(0.05, 0.2) * side
        for offset in (-0.07, 0.0, 0.07):
            _blob(draw, x + offset * side, y, 0.07 * side, 0.04 * side, fill)


def _beach(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    horizon, shore = random.uniform(0.3, 0.38), random.uniform(0.54, 0.64)
    _gradient(draw, side, 0, horizon, _vary((150, 212, 250), random), (214, 240, 252))
    _clouds(draw, side, random, (246, 250, 252))
    if random.random() < 0.5:
        _blob(
            draw,
            random.uniform(0.1, 0.9) * side,
            0.12 * side,
            0.07 * side,
            0.07 * side,
            (255, 236, 150),
        )
    _gradient(draw, side, horizon, shore, _vary((52, 150, 205), random), (96, 200, 215))
    _gradient(draw, side, shore, 1, _vary((250, 232, 180), random), (236, 208, 148))
    draw.rectangle([0, shore * side - 2, side, shore * side + 1], fill=(240, 250, 250))


def _forest(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    ground = random.uniform(0.6, 0.7)
    _gradient(draw, side, 0, ground, _vary((176, 222, 190), random), (206, 234, 196))
    for x in np.linspace(0.06, 0.94, 5) + random.uniform(-0.06, 0.06, 5):
        foot = (ground + random.uniform(-0.02, 0.05)) * side
        height, half = random.uniform(0.42, 0.6) * side, random.uniform(0.09, 0.13) * side
        draw.rectangle([x * side - 4, foot - 0.2 * side, x * side + 4, foot], fill=(120, 88, 60))
        leaf = _vary((62, 134, 76), random, 16)
        for share in (0.0, 0.28):
            top = foot - height + share * height
            draw.polygon(
                [
                    (x * side, top),
                    (x * side - half, top + 0.55 * height),
                    (x * side + half, top + 0.55 * height),
                ],
                fill=leaf,
            )
    _gradient(draw, side, ground, 1, _vary((112, 168, 84), random), (88, 140, 66))


def _street(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    kerb, road = 0.62, random.uniform(0.7, 0.76)
    _gradient(draw, side, 0, kerb, _vary((198, 216, 232), random), (226, 230, 236))
    left = -random.uniform(0, 0.1)
    while left < 1:
        width, top = random.uniform(0.16, 0.28), random.uniform(0.08, 0.34)
        wall = _vary((178, 160, 158), random, 26)
        draw.rectangle([left * side, top * side, (left + width) * side, kerb * side], fill=wall)
        for y in np.arange(top + 0.05, kerb - 0.06, 0.1):
            for x in np.arange(left + 0.035, left + width - 0.05, 0.075):
                draw.rectangle(
                    [x * side, y * side, (x + 0.038) * side, (y + 0.05) * side],
                    fill=(236, 232, 190),
                )
        left += width
    draw.rectangle([0, kerb * side, side, road * side], fill=_vary((196, 196, 196), random, 6))
    draw.rectangle([0, road * side, side, side], fill=_vary((104, 106, 114), random, 8))
    shift = random.uniform(0, 0.3)
    for x in np.arange(-0.3 + shift, 1, 0.3):
        draw.rectangle(
            [x * side, 0.86 * side, (x + 0.16) * side, 0.885 * side], fill=(240, 240, 232)
        )


def _mountain(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    ground = random.uniform(0.62, 0.7)
    _gradient(draw, side, 0, ground, _vary((140, 184, 232), random), (222, 230, 244))
    for x in random.permutation(np.array([0.12, 0.5, 0.88]) + random.uniform(-0.1, 0.1, 3)):
        peak, half = random.uniform(0.1, 0.26), random.uniform(0.3, 0.42)
        rock = _vary((134, 128, 152), random, 14)
        height = ground - peak
        draw.polygon(
            [
                (x * side, peak * side),
                ((x - half) * side, ground * side),
                ((x + half) * side, ground * side),
            ],
            fill=rock,
        )
        cap = 0.3
        draw.polygon(
            [
                (x * side, peak * side),
                ((x - half * cap) * side, (peak + height * cap) * side),
                (x * side, (peak + height * cap * 0.7) * side),
                ((x + half * cap) * side, (peak + height * cap) * side),
            ],
            fill=(248, 250, 253),
        )
    _gradient(draw, side, ground, 1, _vary((158, 178, 110), random), (126, 148, 84))


def _room(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    floor = random.uniform(0.64, 0.72)
    draw.rectangle([0, 0, side, floor * side], fill=_vary((240, 212, 186), random, 14))
    for x in np.arange(random.uniform(0, 0.12), 1, 0.12):
        draw.line([(x * side, 0), (x * side, floor * side)], fill=(230, 200, 172), width=2)
    x = random.uniform(0.08, 0.62)
    draw.rectangle([x * side, 0.1 * side, (x + 0.3) * side, 0.38 * side], fill=(252, 250, 244))
    draw.rectangle(
        [(x + 0.025) * side, 0.125 * side, (x + 0.275) * side, 0.355 * side],
        fill=_vary((160, 212, 242), random),
    )
    draw.rectangle(
        [(x + 0.14) * side, 0.125 * side, (x + 0.16) * side, 0.355 * side], fill=(252, 250, 244)
    )
    _gradient(draw, side, floor, 1, _vary((186, 130, 86), random), (160, 106, 68))
    draw.rectangle([0, floor * side - 3, side, floor * side + 2], fill=(252, 244, 234))
    if random.random() < 0.5:
        _blob(
            draw, 0.5 * side, 0.9 * side, 0.42 * side, 0.08 * side, _vary((206, 92, 98), random, 16)
        )


def _snow(draw: ImageDraw.ImageDraw, side: int, random: Random) -> None:
    ground = random.uniform(0.54, 0.64)
    _gradient(draw, side, 0, ground, _vary((172, 190, 214), random), (214, 224, 238))
    for x in random.uniform(0, 1, 3):
        foot, height = (ground + 0.02) * side, random.uniform(0.2, 0.34) * side
        draw.polygon(
            [
                (x * side, foot - height),
                (x * side - 0.08 * side, foot),
                (x * side + 0.08 * side, foot),
            ],
            fill=(96, 132, 132),
        )
        draw.polygon(
            [
                (x * side, foot - height),
                (x * side - 0.045 * side, foot - 0.45 * height),
                (x * side + 0.045 * side, foot - 0.45 * height),
            ],
            fill=(244, 248, 252),
        )
    _gradient(draw, side, ground, 1, _vary((246, 249, 253), random, 4), (224, 233, 244))
    for _ in range(26):
        _blob(draw, random.uniform(0, side), random.uniform(0, side), 1.7, 1.7, (252, 253, 255))


_PAINTERS: dict[str, Callable[[ImageDraw.ImageDraw, int, Random], None]] = {
    "beach": _beach,
    "forest": _forest,
    "street": _street,
    "mountain": _mountain,
    "room": _room,
    "snow": _snow,
}

PLACES: tuple[str, ...] = tuple(_PAINTERS)


def draw_some(job: tuple[str, int, range], *, seed: int, side_px: int) -> NDArray[np.uint8]:
    """Return the pictures of a place, a width in pixels and some numbers, each its own seed."""
    place, width_px, numbers = job
    return np.stack(
        [
            draw_background(
                place,
                side_px,
                np.random.default_rng([seed, PLACES.index(place), number]),
                width_px=width_px,
            )
            for number in numbers
        ]
    )
