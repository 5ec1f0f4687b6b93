"""From published emoji sets to sprites: fetch, check the licence, draw, crop.

Each set is one npm package with an ``icons.json`` of SVG bodies. A package is used only if its
own ``info.json`` declares the licence written here, so a set that changes its terms stops the
build instead of slipping in. Nothing drawn here is committed: sprites are made when training
needs them and kept in a cache folder.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoji_world.bestiary import CLASSES, INSTANCES, SIBLINGS, Design

SPRITE_SIDE_PX = 96
_FAINT_ALPHA = 40


@dataclass(frozen=True, kw_only=True)
class Source:
    """A published artwork set: npm package, exact version, licence and author."""

    package: str
    version: str
    license: str
    author: str
    url: str


def _source(name: str, version: str, license_: str, author: str, url: str) -> Source:
    return Source(
        package=f"@iconify-json/{name}", version=version, license=license_, author=author, url=url
    )


SOURCES: dict[str, Source] = {
    "noto": _source(
        "noto", "1.2.9", "Apache-2.0", "Google", "https://github.com/googlefonts/noto-emoji"
    ),
    "noto-v1": _source(
        "noto-v1", "1.2.5", "Apache-2.0", "Google", "https://github.com/googlefonts/noto-emoji"
    ),
    "fxemoji": _source(
        "fxemoji", "1.2.2", "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"
    ),
    "fluent-emoji": _source(
        "fluent-emoji", "1.2.7", "MIT", "Microsoft", "https://github.com/microsoft/fluentui-emoji"
    ),
    "fluent-emoji-flat": _source(
        "fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Microsoft",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "twemoji": _source(
        "twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "Twitter and contributors",
        "https://github.com/jdecked/twemoji",
    ),
    "emojione": _source(
        "emojione", "1.2.3", "CC-BY-4.0", "EmojiTwo", "https://github.com/EmojiTwo/emojitwo"
    ),
    "streamline-emojis": _source(
        "streamline-emojis",
        "1.2.4",
        "CC-BY-4.0",
        "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
    ),
}

Sprites = dict[str, NDArray[np.uint8]]
"""Design key -> RGBA picture [height, width, 4], cropped to what is drawn."""


def all_designs() -> list[Design]:
    """Return every design once: classes, siblings, instances, and instances in bare colours."""
    families = (*CLASSES.values(), *SIBLINGS.values())
    own = [instance.design for instance in INSTANCES]
    designs = [design for family in families for design in family]
    return list(dict.fromkeys([*designs, *own, *(design.bare for design in own)]))


def fetch(cache: Path, names: Iterable[str] = SOURCES) -> dict[str, str]:
    """Bring the artwork packages into ``cache`` with ``npm pack`` and return their SHA-256.

    Raises:
        RuntimeError: npm is missing, a download failed, or a licence is not the declared one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    for name in names:
        source = SOURCES[name]
        archive = cache / f"iconify-json-{name}-{source.version}.tgz"
        if not archive.is_file():
            npm = shutil.which("npm")
            if npm is None:
                raise RuntimeError(
                    f"{archive} is missing and npm is not installed: install Node.js, or put "
                    f"the archive of {source.package}@{source.version} there by hand"
                )
            subprocess.run(  # noqa: S603 - a constant package name
                [npm, "pack", "--silent", f"{source.package}@{source.version}"],
                cwd=cache,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        digests[name] = hashlib.sha256(archive.read_bytes()).hexdigest()
        declared = _member(archive, "info.json")["license"]["spdx"]
        if declared != source.license:
            raise RuntimeError(
                f"{archive}: declares licence {declared!r}, expected {source.license!r}; "
                "check the terms before using this version"
            )
    return digests


def _member(archive: Path, name: str) -> Any:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(f"package/{name}")
        if stream is None:
            raise RuntimeError(f"{archive}: holds no {name}")
        return json.load(stream)


@lru_cache(maxsize=16)
def _icons(archive: Path) -> Any:
    return _member(archive, "icons.json")


def render(design: Design, cache: Path, side_px: int = SPRITE_SIDE_PX) -> NDArray[np.uint8]:
    """Draw a design as RGBA [height, width, 4], longest side ``side_px``, cropped to its ink."""
    import resvg_py

    source = SOURCES[design.artwork]
    icons = _icons(cache / f"iconify-json-{design.artwork}-{source.version}.tgz")
    icon = icons["icons"][design.icon]
    box = [
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    ]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}" width="{2 * side_px}" height="{2 * side_px}">'
        f"{icon['body']}</svg>"
    )
    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    inked = np.asarray(picture.getchannel("A")) > _FAINT_ALPHA
    picture = picture.crop(Image.fromarray(inked).getbbox())
    scale = side_px / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.LANCZOS,
    )
    return recolour(np.asarray(picture), design.hue_turn, design.tint)


def recolour(
    rgba: NDArray[np.uint8], hue_turn: float, tint: tuple[float, float, float] | None
) -> NDArray[np.uint8]:
    """Turn all hues, then colour the grey picture with ``tint`` where one is given."""
    rgb = (rgba[..., :3] / 255).astype(np.float32)
    if hue_turn:
        rgb = turn_hue(rgb, hue_turn)
    if tint is not None:
        grey = rgb @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
        colour = np.array(tint, dtype=np.float32)
        # Mid grey takes the tint itself; darker and lighter greys stay darker and lighter.
        dark = np.clip(grey * 1.7, 0, 1)[..., None] * colour
        rgb = dark + np.clip(grey - 0.62, 0, 1)[..., None] * 1.3
    result = rgba.copy()
    result[..., :3] = (np.clip(rgb, 0, 1) * 255).round()
    return result


def turn_hue(rgb: NDArray[np.floating], turn: float) -> NDArray[np.float32]:
    """Rotate colours [..., 3] about the grey axis of YIQ by ``turn`` of the full circle."""
    angle = 2 * np.pi * turn
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    spin = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    matrix = np.linalg.inv(to_yiq) @ spin @ to_yiq
    return np.clip(rgb @ matrix.T.astype(np.float32), 0, 1).astype(np.float32)


def load_sprites(cache: Path) -> Sprites:
    """Return all sprites; draws them on first use and keeps them in ``cache/sprites.npz``."""
    stored = cache / "sprites.npz"
    keys = [design.key for design in all_designs()]
    if stored.is_file():
        with np.load(stored) as archive:
            if set(archive.files) >= set(keys):
                return {key: archive[key] for key in keys}
    fetch(cache, sorted({design.artwork for design in all_designs()}))
    sprites = {design.key: render(design, cache) for design in all_designs()}
    np.savez_compressed(stored, **sprites)  # pyright: ignore[reportArgumentType]
    return sprites
