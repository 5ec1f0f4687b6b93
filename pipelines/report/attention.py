"""Attention maps and masks over an image as they evolve: a row per concept, a column per step.

Each tile is the finished image in grey, the concept's map of that step over it (scaled to its own
peak, so that where it looks is seen whatever its strength) and the outline of its mask. It is the
record of one sampling, made on request; images do not carry it.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAPS_FOLDER = "maps"
NUM_STEPS = 8
TILE_PX = 112
GAP_PX = 6
LABEL_PX = 130
HEADER_PX = 26
FONT_PX = 13

_PAPER, _INK = (251, 250, 247), (35, 35, 43)
_HEAT = np.array([209, 73, 28], dtype=np.float32)
_MOST_HEAT = 0.75


def maps_name(key: str) -> str:
    """Return where the maps of a row lie in its output."""
    return f"{MAPS_FOLDER}/{key}.webp"


def attention_sheet(
    image: NDArray[np.uint8],
    maps: NDArray[np.float32],
    masks: NDArray[np.bool_],
    names: Sequence[str],
) -> bytes:
    """Return the sheet as a WebP.

    Args:
        image: The finished image, RGB [height, width, 3].
        maps: Each concept's attention [step, concept, map height, map width].
        masks: Masks [step, variant, map height, map width]; variant 0 is the background.
        names: Of the concepts.
    """
    steps = chosen_steps(len(maps))
    height_px = max(1, round(TILE_PX * image.shape[0] / image.shape[1]))
    size = (
        LABEL_PX + len(steps) * (TILE_PX + GAP_PX),
        HEADER_PX + len(names) * (height_px + GAP_PX),
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_PX)
    grey = Image.fromarray(image).convert("L").resize((TILE_PX, height_px)).convert("RGB")
    paper = Image.new("RGB", grey.size, _PAPER)
    base = np.asarray(Image.blend(grey, paper, 0.35), dtype=np.float32)
    for column, step in enumerate(steps):
        x = LABEL_PX + column * (TILE_PX + GAP_PX)
        draw.text((x, 6), f"step {step + 1}", fill=_INK, font=font)
        for concept in range(len(names)):
            tile = _tile(base, maps[step, concept], masks[step, concept + 1])
            sheet.paste(tile, (x, HEADER_PX + concept * (height_px + GAP_PX)))
    for concept, name in enumerate(names):
        y = HEADER_PX + concept * (height_px + GAP_PX) + height_px // 2 - FONT_PX // 2
        draw.text((6, y), name[:18], fill=_INK, font=font)
    sink = io.BytesIO()
    sheet.save(sink, "WEBP", quality=88, method=2)
    return sink.getvalue()


def chosen_steps(num_steps: int) -> list[int]:
    """Return at most ``NUM_STEPS`` steps, evenly spread, the first and the last among them."""
    count = min(num_steps, NUM_STEPS)
    if count < 2:
        return list(range(count))
    return [round(index * (num_steps - 1) / (count - 1)) for index in range(count)]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the positions of ``mask`` that touch one outside it or the border."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _tile(
    base: NDArray[np.float32], attention: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Image.Image:
    height, width = base.shape[:2]
    peak = float(attention.max())
    levels = attention / peak * 255 if peak > 0 else np.zeros_like(attention)
    enlarged = Image.fromarray(levels.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    strength = np.asarray(enlarged, dtype=np.float32)[:, :, None] / 255 * _MOST_HEAT
    coloured = base * (1 - strength) + _HEAT * strength
    large = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (width, height), Image.Resampling.NEAREST
    )
    coloured[outline(np.asarray(large) > 0)] = _INK
    return Image.fromarray(coloured.astype(np.uint8))
