"""``python -m emoji_world.measures.eyes_draw OUT``: what is looked at to check the judge.

A hundred pictures of six methods, on seeds that nothing else uses, as sheets in two random orders.
A sheet shows the pictures and what the asked instances look like, and nothing of the method.
``eyes.csv`` is the table to fill in, see ``emoji_world.measures.eyes``.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emoji_world.artwork import Sprites, load_sprites
from emoji_world.bestiary import INSTANCES
from emoji_world.captions import PLACE_PHRASES, listed
from emoji_world.measures.eyes import LABELS, MOSAIC_COLUMNS, PICTURES, QUESTIONS, digest
from emoji_world.measures.renderer import Renderer
from emoji_world.scenes import SIDE_PX, WIDE_PX, draw_scene, of_instance

METHODS = ("clora-gated", "clora", "merge", "composite", "switch", "base")
PAIRS_EACH, TRIPLES_EACH = 14, 4
TRIPLE_METHODS = ("clora-gated", "clora", "merge", "switch")
FIRST_SEED = 90_000
_COLUMNS, _ROWS, _SCALE = 4, 3, 4


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A picture to be looked at: what was asked of the model, and how."""

    method: str
    instances: tuple[str, ...]
    prompt: str
    seed: int
    width: int


def subjects() -> list[Subject]:
    """Return the hundred pictures: every method on pairs, four of them on triples as well."""
    random = np.random.default_rng(17)
    nouns = {instance.name: instance.noun for instance in INSTANCES}
    phrases = tuple(PLACE_PHRASES.values())
    wanted = [(method, 2) for method in METHODS for _ in range(PAIRS_EACH)]
    wanted += [(method, 3) for method in TRIPLE_METHODS for _ in range(TRIPLES_EACH)]
    found: list[Subject] = []
    for index, (method, count) in enumerate(wanted):
        names: list[str] = []
        while len({nouns[name] for name in names}) < count:
            names = [str(name) for name in random.choice(list(nouns), count, replace=False)]
        said = listed([f"a {nouns[name]}" for name in names])
        found.append(
            Subject(
                method=method,
                instances=tuple(names),
                prompt=f"{said} {phrases[index % len(phrases)]}",
                seed=FIRST_SEED + index,
                width=SIDE_PX if count == 2 else WIDE_PX,
            )
        )
    return found


def draw(out: Path, artwork: Path) -> None:
    """Render the pictures and write them with the sheets and a table to fill in."""
    out.mkdir(parents=True, exist_ok=True)
    asked, renderer = subjects(), Renderer("cpu")
    rows = [
        renderer.row(
            each.prompt,
            () if each.method == "base" else each.instances,
            each.seed,
            each.method,
            width=each.width,
        )
        for each in asked
    ]
    order = sorted(range(len(rows)), key=lambda k: (rows[k].method, rows[k].width))
    pictures: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * len(rows)
    for index, picture in zip(order, renderer.render([rows[k] for k in order]), strict=True):
        pictures[index] = picture
    sprites = load_sprites(artwork)
    numbers = np.random.default_rng(23).permutation(len(asked))
    _write_mosaic([pictures[k] for k in numbers], out / PICTURES.name)
    named = [(number, pictures[k], asked[k]) for number, k in enumerate(numbers)]
    for turn in (1, 2):
        shown = np.random.default_rng(turn).permutation(len(named))
        for page, start in enumerate(range(0, len(named), _COLUMNS * _ROWS)):
            part = [named[k] for k in shown[start : start + _COLUMNS * _ROWS]]
            _sheet(part, sprites).save(out / f"pass-{turn}-{page + 1}.png")
    with (out / LABELS.name).open("w", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(_HEADER)
        for number, picture, each in named:
            for name in each.instances:
                known = (number, digest(picture), each.method, each.seed, each.prompt, name)
                writer.writerow([*known, *[""] * 6])


_HEADER = (
    *("number", "digest", "method", "seed", "prompt", "instance"),
    *(f"{question}_{turn}" for turn in (1, 2) for question in QUESTIONS),
)


def _write_mosaic(pictures: Sequence[NDArray[np.uint8]], path: Path) -> None:
    rows = -(-len(pictures) // MOSAIC_COLUMNS)
    mosaic = Image.new("RGB", (MOSAIC_COLUMNS * WIDE_PX, rows * SIDE_PX))
    for number, picture in enumerate(pictures):
        place = (number % MOSAIC_COLUMNS * WIDE_PX, number // MOSAIC_COLUMNS * SIDE_PX)
        mosaic.paste(Image.fromarray(picture), place)
    mosaic.save(path, lossless=True)


def _sheet(part: Sequence[tuple[int, NDArray[np.uint8], Subject]], sprites: Sprites) -> Image.Image:
    """Return pictures with their numbers, and under each what its instances look like."""
    width, height = WIDE_PX * _SCALE + 12, SIDE_PX * (_SCALE + 1) + 36
    sheet = Image.new("RGB", (width * _COLUMNS, height * _ROWS), "white")
    drawing = ImageDraw.Draw(sheet)
    for index, (number, picture, asked) in enumerate(part):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        drawing.text((left + 4, top), f"{number}", fill="black", font=ImageFont.load_default(18))
        large = Image.fromarray(picture)
        large = large.resize(
            (large.width * _SCALE, large.height * _SCALE), Image.Resampling.BICUBIC
        )
        sheet.paste(large, (left + 4, top + 24))
        for turn, name in enumerate(asked.instances):
            instance = next(each for each in INSTANCES if each.name == name)
            drawn = draw_scene([of_instance(instance)], sprites, np.random.default_rng(3)).image
            sheet.paste(Image.fromarray(drawn), (left + 4 + turn * 72, top + 28 + SIDE_PX * _SCALE))
    return sheet


def main() -> None:
    """Read the options and draw."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.measures.eyes_draw")
    parser.add_argument("out", type=Path)
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    options = parser.parse_args()
    draw(options.out, options.artwork)


if __name__ == "__main__":
    main()
