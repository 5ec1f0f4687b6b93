"""Square windows of an image, evenly spread, for scores that look at parts of it.

Sizes are shares of the image's shorter side. So a window is square, as vision transformers want
their pictures, and shows as much of a subject in an image of 512 px as in one of 1024.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int, UInt8


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How large windows are and how close they stand.

    Attributes:
        side: Of a window, as a share of the image's shorter side, above 0 and at most 1.
        stride: Largest step to the next window, as a share of the shorter side, above 0.
    """

    side: float
    stride: float


LAYOUTS: Mapping[int, Layout] = MappingProxyType(
    {
        1: Layout(side=1.0, stride=1 / 2),
        2: Layout(side=1 / 2, stride=1 / 4),
        3: Layout(side=1 / 3, stride=1 / 6),
        4: Layout(side=1 / 3, stride=1 / 6),
    }
)
"""By the number of subjects that should be there. Up to three, as many windows fit into a row; each
is half over the next. A square image has 1, 9, 25 and 25 of them.
"""


@lru_cache(maxsize=64)
def window_boxes(height: int, width: int, layout: Layout) -> Int[np.ndarray, "window 4"]:
    """Return left, top, right and bottom in pixels of every window of an image.

    They are spread evenly, from edge to edge; a single pixel over may be in none.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        layout: Size and stride.
    """
    shorter = min(height, width)
    side = max(1, math.floor(layout.side * shorter))
    boxes = [
        (left, top, left + side, top + side)
        for top in _places(height - side, layout.stride * shorter)
        for left in _places(width - side, layout.stride * shorter)
    ]
    found = np.array(boxes, np.int64)
    found.setflags(write=False)  # the cache keeps it
    return found


def _places(room: int, stride: float) -> list[int]:
    # One pixel more or less of a side that thirds do not divide must not add a window.
    count = math.ceil((room - 1) / stride) + 1 if room else 1
    return [round(place) for place in np.linspace(0, room, count)]


def disjoint(boxes: Int[np.ndarray, "window 4"]) -> Bool[np.ndarray, "window window"]:
    """Return which windows have no pixel in common; edges may touch."""
    low, high = boxes[:, :2], boxes[:, 2:]
    apart = (high[:, None] <= low[None]) | (high[None] <= low[:, None])
    return apart[..., 0] | apart[..., 1]


def cut_windows(
    image: UInt8[np.ndarray, "height width 3"], boxes: Int[np.ndarray, "window 4"]
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return the windows of an image."""
    return [image[top:bottom, left:right] for left, top, right, bottom in boxes.tolist()]
