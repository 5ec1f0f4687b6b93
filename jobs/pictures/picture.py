"""What a picture says of itself: the texts that every image of ours carries.

``parameters`` is for people and viewers; ``clora`` is the recipe, JSON with everything but the
files themselves, which it names by digest. A picture may come from a stranger, so it is read only
as far as it is one of ours; what its recipe says is judged by ``jobs.pictures.recipe``.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clora_core.recipe.errors import CloraError
from jobs.pictures.png_outline import MAX_TEXT_BYTES, png_problem
from manifests.places.regular_file import irregularity
from manifests.text.json_text import load_json

MAX_DEPTH = 32
"""Of a recipe's lists and mappings; ours have 3."""


class PictureError(CloraError):
    """A file is no picture of ours; the message names it and the way out."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its texts.

    Attributes:
        parameters: The infotext.
        recipe: What making it again takes, as the picture says it.
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
    texts, pixels = _texts_and_pixels(path)
    if "clora" not in texts:
        raise PictureError(
            f"{path} does not say how it was made; name a PNG from an output's images/ (programs "
            "that save pictures anew often drop such texts)"
        )
    return Picture(texts.get("parameters", ""), _recipe(path, texts["clora"]), pixels)


def _texts_and_pixels(path: Path) -> tuple[dict[str, str], np.ndarray]:
    try:
        problem = irregularity(path) or png_problem(path)
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from error
    if problem is not None:
        raise PictureError(f"{path} {problem}")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
            texts = {str(name): str(text) for name, text in cast("Any", image).text.items()}
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        reason = str(error).splitlines() or [type(error).__name__]
        raise PictureError(f"{path} is not a picture that can be read: {reason[0]}") from error
    for name, text in texts.items():
        if len(text) > MAX_TEXT_BYTES:
            raise PictureError(
                f"{path} carries a text {name[:80]!r} that unpacks to {len(text):,} characters; at "
                f"most {MAX_TEXT_BYTES:,} are read"
            )
    return texts, pixels


def _recipe(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = load_json(text, allow_nan=False)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise PictureError(
            f"{path} has a recipe that cannot be read ({reason}); name a picture as it was made"
        ) from None
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"{str(value)[:80]!r}"
        raise PictureError(
            f"{path} has a recipe that is {kind} and no JSON object; name a picture as it was made"
        )
    recipe = cast("dict[str, Any]", value)
    if _is_deep(recipe):
        raise PictureError(
            f"{path} has a recipe that is nested more than {MAX_DEPTH} times; name a picture as it "
            "was made"
        )
    return recipe


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                inner.extend(cast("list[object]", item))
        if not inner:
            return False
        level = inner
    return True


def with_texts(pixels: np.ndarray, parameters: str, recipe: Mapping[str, Any]) -> bytes:
    """Return a PNG of ``pixels`` that carries the texts."""
    texts = PngInfo()
    texts.add_text("parameters", parameters)
    texts.add_text("clora", json.dumps(dict(recipe)))
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", pnginfo=texts)
    return sink.getvalue()
