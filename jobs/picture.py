"""What a picture says of itself: the texts that every image of ours carries.

``parameters`` is for people and viewers; ``clora`` is the recipe, JSON with everything but the
files themselves, which it names by digest.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

__all__ = ["Picture", "PictureError", "read_picture", "with_texts"]


class PictureError(Exception):
    """A file is no picture of ours; the message names it and the way out."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its texts.

    Attributes:
        parameters: The infotext.
        recipe: What making it again takes.
        pixels: uint8 RGB [height, width, 3].
    """

    parameters: str
    recipe: Mapping[str, Any]
    pixels: np.ndarray


def read_picture(path: Path) -> Picture:
    """Return the picture at ``path``.

    Raises:
        PictureError: It is none of ours.
    """
    try:
        with Image.open(path) as image:
            texts = dict(image.text) if isinstance(image, PngImageFile) else {}
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist; check the path") from None
    except (
        # The last is what Pillow says of a PNG whose chunks are not where they should be.
        OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError,
    ) as error:  # fmt: skip
        raise PictureError(f"{path} is not a picture that can be read: {error}") from error
    try:
        recipe = json.loads(texts["clora"])
    except (KeyError, ValueError):
        raise PictureError(
            f"{path} does not say how it was made; name a PNG from an output's images/ (programs "
            "that save pictures anew often drop such texts)"
        ) from None
    return Picture(str(texts.get("parameters", "")), recipe, pixels)


def with_texts(pixels: np.ndarray, parameters: str, recipe: Mapping[str, Any]) -> bytes:
    """Return a PNG of ``pixels`` that carries the texts."""
    texts = PngInfo()
    texts.add_text("parameters", parameters)
    texts.add_text("clora", json.dumps(dict(recipe)))
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", pnginfo=texts)
    return sink.getvalue()
