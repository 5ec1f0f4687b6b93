"""The picture sheet of methods: a pair a row, each method's seeds side by side, all named."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emoji_world.measures.composed import Composed

_SCALE = 2
_GAP_PX = 4
_LABEL_PX = 150
_HEADER_PX = 34


def write_method_sheet(
    path: Path, composed: Sequence[Composed], pairs: Sequence[tuple[str, str]], num_seeds: int
) -> None:
    """Write the sheet in the format of the name.

    Args:
        path: The file.
        composed: Pictures of each method, pairs × seeds of them and more; the first are shown.
        pairs: The pairs to show, those that the pictures begin with.
        num_seeds: Pictures of each pair.
    """
    tile_px = composed[0].images[0].shape[0] * _SCALE
    group_px = num_seeds * (tile_px + 1) + 3 * _GAP_PX
    row_px = tile_px + _GAP_PX
    size = (_LABEL_PX + len(composed) * group_px, _HEADER_PX + len(pairs) * row_px)
    sheet = Image.new("RGB", size, "#fbfaf7")
    draw = ImageDraw.Draw(sheet)
    for column, made in enumerate(composed):
        left = _LABEL_PX + column * group_px
        draw.text((left, 6), made.method, fill="#22222a", font=ImageFont.load_default(18))
        for line in range(len(pairs)):
            for turn in range(num_seeds):
                picture = Image.fromarray(np.asarray(made.images[line * num_seeds + turn]))
                picture = picture.resize((tile_px, tile_px), Image.Resampling.BICUBIC)
                sheet.paste(picture, (left + turn * (tile_px + 1), _HEADER_PX + line * row_px))
    for line, pair in enumerate(pairs):
        place = (6, _HEADER_PX + line * row_px + tile_px // 2 - 20)
        draw.text(place, "\n+ ".join(pair), fill="#22222a", font=ImageFont.load_default(15))
    sheet.save(path, quality=90)
