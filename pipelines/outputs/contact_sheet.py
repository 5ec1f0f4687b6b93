"""The contact sheet: one picture that shows what a run made, for the first look.

A row of the sheet is one composition and seed, a column one method, so that what differs between
neighbours is the method alone. Small images are enlarged, long sheets cut to evenly spread rows.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SheetRow = Mapping[str, Any]
"""Columns key, prompt, loras (with names), seed, method, width, height, dino_min of a row."""

MAX_SHEET_ROWS = 12
LINES_A_BLOCK = 6
"""A longer sheet goes on beside itself, so that it fits on a screen."""

TILE_PX = 192
GAP_PX = 10
LABEL_PX = 210
LABEL_CHARACTERS = 22
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
    fullest = max((len(methods) for methods in groups.values()), default=0)
    ordered = [item for item in sorted(groups.items()) if len(item[1]) == fullest]
    count = min(len(ordered), MAX_SHEET_ROWS)
    return [ordered[index * len(ordered) // count] for index in range(count)]


def contact_sheet(
    rows: Sequence[SheetRow], image_of: Callable[[SheetRow], bytes | None], *, title: str
) -> bytes | None:
    """Return the sheet as a PNG, None if there is nothing to show.

    Args:
        rows: Rows that have an image.
        image_of: The PNG of a row; None leaves its place empty.
        title: Stands over the sheet.
    """
    chosen = choose_rows(rows)
    if not chosen:
        return None
    methods = sorted({method for _, by_method in chosen for method in by_method})
    block_width = LABEL_PX + len(methods) * (TILE_PX + GAP_PX)
    num_lines = min(len(chosen), LINES_A_BLOCK)
    num_blocks = -(-len(chosen) // LINES_A_BLOCK)
    line_px = TILE_PX + CAPTION_PX + GAP_PX
    size = (num_blocks * block_width + GAP_PX, 2 * HEADER_PX + num_lines * line_px)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX), title, fill=_INK, font=_font(20))
    for index, (composition, by_method) in enumerate(chosen):
        block, line = divmod(index, LINES_A_BLOCK)
        left, y = block * block_width, 2 * HEADER_PX + line * line_px
        _draw_label(draw, composition, (left + GAP_PX, y))
        for column, method in enumerate(methods):
            x = left + LABEL_PX + column * (TILE_PX + GAP_PX)
            if line == 0:
                draw.text((x, HEADER_PX + 8), method, fill=_INK, font=_font(20))
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


def _tile(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = TILE_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
