"""Looks of whole pictures, as procedural transforms: what style LoRAs learn."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter


def pixel_art(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture in 4×4 px blocks of few, stronger colours."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((width // 4, height // 4), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.float32)
    grey = pixels.mean(-1, keepdims=True)
    strong = grey + (pixels - grey) * 1.35
    steps = (np.round(strong / 36.4) * 36.4).clip(0, 255).astype(np.uint8)
    return np.repeat(np.repeat(steps, 4, 0), 4, 1)


def line_art(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return dark outlines of the picture on cream paper."""
    picture = Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.6))
    pixels = np.asarray(picture).astype(np.float32)
    down = np.abs(np.diff(pixels, axis=0, append=pixels[-1:])).max(-1)
    across = np.abs(np.diff(pixels, axis=1, append=pixels[:, -1:])).max(-1)
    ink = np.clip((np.hypot(down, across) - 8) / 42, 0, 1)[..., None]
    shade = (pixels.mean(-1, keepdims=True) - 255) * 0.12
    paper = np.array([250, 244, 228], np.float32) + shade
    return (
        (paper * (1 - ink) + np.array([40, 36, 60], np.float32) * ink).clip(0, 255).astype(np.uint8)
    )


def night(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture by moonlight: dark, blue, lit from above."""
    pixels = image.astype(np.float32) / 255
    grey = pixels.mean(-1, keepdims=True)
    muted = grey + (pixels - grey) * 0.6
    light = np.linspace(0.85, 0.55, image.shape[0], dtype=np.float32)[:, None, None]
    blue = np.array([0.55, 0.72, 1.25], np.float32)
    return (
        ((muted**1.25 * light * blue + np.array([0.01, 0.02, 0.09])) * 255)
        .clip(0, 255)
        .astype(np.uint8)
    )


_STYLES = {"pixel-art": pixel_art, "line-art": line_art, "night": night}


def apply_style(image: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return the picture [height, width, 3] in a style of ``emoji_world.bestiary.STYLES``.

    Raises:
        KeyError: No style has that name.
    """
    return _STYLES[name](image)
