"""Progress for people: lines with the time, and sheets of pictures."""

import time
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

_START = time.monotonic()


def say(line: str) -> None:
    """Print a line with the seconds since the start, at once."""
    print(f"[{time.monotonic() - _START:7.1f} s] {line}", flush=True)


def write_sheet(path: Path, images: Tensor, columns: int) -> None:
    """Write pictures in [-1, 1], [n, 3, h, w], as a PNG of ``columns`` a row, twice the size."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    pixels = pixels.transpose(0, 2, 3, 1)
    rows = -(-len(pixels) // columns)
    height, width = pixels.shape[1:3]
    sheet = np.full((rows * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), 0).save(path)
