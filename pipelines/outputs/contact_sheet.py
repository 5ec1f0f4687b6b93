"""The contact sheet: one picture that shows what a run made, for the first look.

A row of the sheet is one composition and seed, a column one method, so that what differs between
neighbours is the method alone. Beside them stands what each LoRA makes alone, where references
show it. Small images are enlarged, long sheets cut to evenly spread rows.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SheetRow = Mapping[str, Any]
"""Columns key, prompt, loras (with names), seed, method, width, height, dino_min and
unet_evaluations of a row."""

MAX_SHEET_ROWS = 12
LINES_A_BLOCK = 6
"""A longer sheet goes on beside itself, so that it fits on a screen."""

TILE_PX = 192
GAP_PX = 10
LABEL_PX = 210
LABEL_CHARACTERS = 22
ALONE_PX = 100
HEADER_PX = 44
CAPTION_PX = 24

_BACKGROUND = "#fbfaf7"
_INK = "#22222a"
_FAINT = "#77777f"

Composition = tuple[str, tuple[str, ...], int, int, int]


def choose_rows(rows: Sequence[SheetRow]) -> list[tuple[Composition, dict[str, SheetRow]]]:
    """Return at most ``MAX_SHEET_ROWS`` compositions with their rows by method.

    Compositions that most methods made come first in choice; what is chosen is spread evenly
    over the rest and shown in the order of prompt, LoRAs and seed.
    """
    groups: dict[Composition, dict[str, SheetRow]] = {}
    for row in rows:
        names = tuple(lora["name"] for lora in row["loras"])
        composition = (row["prompt"], names, row["seed"], row["width"], row["height"])
        groups.setdefault(composition, {}).setdefault(row["method"], row)
    return evenly_chosen(groups)


def evenly_chosen(
    groups: Mapping[Composition, dict[str, SheetRow]],
) -> list[tuple[Composition, dict[str, SheetRow]]]:
    """Return what ``choose_rows`` does, of compositions with their rows by method."""
    fullest = max((len(methods) for methods in groups.values()), default=0)
    ordered = [item for item in sorted(groups.items()) if len(item[1]) == fullest]
    count = min(len(ordered), MAX_SHEET_ROWS)
    return [ordered[index * len(ordered) // count] for index in range(count)]


def contact_sheet(
    rows: Sequence[SheetRow],
    image_of: Callable[[SheetRow], bytes | None],
    *,
    title: str,
    alone_of: Callable[[SheetRow], Sequence[bytes]] = lambda _row: (),
) -> bytes | None:
    """Return the sheet as a PNG, None if there is nothing to show.

    Args:
        rows: Rows that have an image.
        image_of: The PNG of a row; None leaves its place empty.
        title: Stands over the sheet.
        alone_of: What the row's LoRAs make alone, a PNG each, as many as there are.
    """
    chosen = choose_rows(rows)
    if not chosen:
        return None
    methods = sorted({method for _, by_method in chosen for method in by_method})
    alone = [alone_of(next(iter(by_method.values()))) for _, by_method in chosen]
    alone_px = ALONE_PX if any(alone) else 0
    block_width = LABEL_PX + alone_px + len(methods) * (TILE_PX + GAP_PX)
    num_lines = min(len(chosen), LINES_A_BLOCK)
    num_blocks = -(-len(chosen) // LINES_A_BLOCK)
    line_px = TILE_PX + CAPTION_PX + GAP_PX
    size = (num_blocks * block_width + GAP_PX, 3 * HEADER_PX + num_lines * line_px)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX), title, fill=_INK, font=_font(20))
    for index, (composition, by_method) in enumerate(chosen):
        block, line = divmod(index, LINES_A_BLOCK)
        left, y = block * block_width, 3 * HEADER_PX + line * line_px
        _draw_label(draw, composition, (left + GAP_PX, y))
        if alone_px and line == 0:
            draw.text((left + LABEL_PX, HEADER_PX + 8), "alone", fill=_INK, font=_font(20))
        _draw_alone(sheet, alone[index], (left + LABEL_PX, y))
        for column, method in enumerate(methods):
            x = left + LABEL_PX + alone_px + column * (TILE_PX + GAP_PX)
            if line == 0:
                draw.text((x, HEADER_PX + 8), method, fill=_INK, font=_fitting(method))
                cost = _cost([members[method] for _, members in chosen if method in members])
                draw.text((x, 2 * HEADER_PX - 8), cost, fill=_FAINT, font=_font(14))
            row = by_method.get(method)
            content = None if row is None else image_of(row)
            if row is not None and content is not None:
                sheet.paste(_tile(content), (x, y))
                if row["dino_min"] is not None:
                    caption = f"DINO min {row['dino_min']:.2f}"
                    draw.text((x, y + TILE_PX + 2), caption, fill=_FAINT, font=_font(14))
    sink = io.BytesIO()
    # Quickly: everything else waits for it at the end of a run.
    sheet.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def _draw_label(
    draw: ImageDraw.ImageDraw, composition: Composition, place: tuple[int, int]
) -> None:
    x, y = place
    prompt, names, seed, _, _ = composition
    lines = [
        *textwrap.wrap(prompt, LABEL_CHARACTERS, max_lines=4, placeholder=" ..."),
        *textwrap.wrap(" + ".join(names), LABEL_CHARACTERS, max_lines=3, placeholder=" ..."),
        f"seed {seed}",
    ]
    num_prompt = len(textwrap.wrap(prompt, LABEL_CHARACTERS, max_lines=4, placeholder=" ..."))
    for index, line in enumerate(lines):
        ink = _INK if index < num_prompt else _FAINT
        draw.text((x, y + 4 + index * 22), line, fill=ink, font=_font(16))


def _draw_alone(sheet: Image.Image, contents: Sequence[bytes], place: tuple[int, int]) -> None:
    """Draw what each LoRA makes alone, one under the other in the height of a tile."""
    x, y = place
    if not contents:
        return
    step = TILE_PX // len(contents)
    side = min(step - 2, ALONE_PX - GAP_PX)
    for number, content in enumerate(contents):
        sheet.paste(_tile(content, side), (x, y + number * step))


def _cost(rows: Sequence[SheetRow]) -> str:
    """Say how often a sample of such a row goes through the UNet, on average."""
    counts = [row["unet_evaluations"] for row in rows if row["unet_evaluations"]]
    return f"{sum(counts) / len(counts):.0f} UNet passes" if counts else ""


def _tile(content: bytes, side_px: int = TILE_PX) -> Image.Image:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = side_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _fitting(method: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the largest font in which a method's name stays above its own column."""
    fonts = [_font(size) for size in range(20, 9, -1)]
    return next((font for font in fonts if font.getlength(method) <= TILE_PX), fonts[-1])


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
