"""``python -m emoji_world.evaluate``: measure the committed weights and show what they make.

Prints the table of the model card and writes sample sheets. Pairs and seeds are none of those that
settings were fitted on.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from clora_core.dino import DinoScorer
from emoji_world import base_model_dir, dino_dir, lora_catalog, presence_file
from emoji_world.bestiary import ORDINARY, plain_name
from emoji_world.measures.composed import (
    EVALUATION_PAIRS,
    PLAIN_PAIRS,
    Composed,
    dino_figures,
    judged_figures,
    reference_centroids,
    render_methods,
)
from emoji_world.measures.drawn import drawn_figures
from emoji_world.measures.force import force_figures
from emoji_world.measures.generated import base_figures, single_figures
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.sheet import write_method_sheet
from emoji_world.measures.table import Figure, markdown, of_mean
from emoji_world.presence import load_presence

Pair = tuple[str, str]

_METHODS = ("clora-gated", "clora", "merge", "composite", "switch")
_FIRST_SEED = 5000
_PAIRS_SHOWN = 10


def _drawn(options: argparse.Namespace) -> list[Figure]:
    return drawn_figures(
        _pipeline(),
        load_presence(presence_file()),
        DinoScorer.load(dino_dir()),
        cache=options.artwork,
        tokenizer=base_model_dir() / "tokenizer",
        scenes=options.scenes,
    )


def _base(options: argparse.Namespace) -> list[Figure]:
    renderer = Renderer(options.device)
    figures = base_figures(renderer, load_presence(presence_file()), each=options.each)
    return [*figures, of_mean("seconds a plain picture", renderer.seconds, "≤ 1")]


def _single(options: argparse.Namespace) -> list[Figure]:
    net, renderer = load_presence(presence_file()), Renderer(options.device)
    figures = single_figures(renderer, net, each=options.each)
    names = [plain_name(name) for name in ORDINARY]
    plain = single_figures(renderer, net, each=options.each, names=names)
    return [*figures, *(replace(figure, name=f"plain: {figure.name}") for figure in plain)]


def _pairs(options: argparse.Namespace) -> list[Figure]:
    """Measure pairs of LoRAs of both kinds, and write the sheet of the first kind."""
    net, seeds = load_presence(presence_file()), range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    renderer, pairs = Renderer(options.device), EVALUATION_PAIRS[: options.pairs]
    composed = render_methods(renderer, options.methods, pairs, seeds)
    shown = pairs[:: max(1, len(pairs) // _PAIRS_SHOWN)][:_PAIRS_SHOWN]
    chosen = [_of_pairs(made, pairs, shown, options.seeds) for made in composed]
    write_method_sheet(options.out / "methods.webp", chosen, shown, options.seeds)
    dino = DinoScorer.load(dino_dir())
    centroids = reference_centroids(renderer, dino, each=max(2, options.each))
    plain_pairs = PLAIN_PAIRS[: options.pairs]
    plain = render_methods(renderer, options.methods, plain_pairs, seeds)
    return [
        *judged_figures(composed, pairs, seeds, net, "two LoRAs"),
        *dino_figures(composed, pairs, seeds, dino, centroids),
        *judged_figures(plain, plain_pairs, seeds, net, "two plain LoRAs"),
        *(of_mean(f"seconds a picture, {made.method}", [made.seconds]) for made in composed),
    ]


def _force(options: argparse.Namespace) -> list[Figure]:
    return [
        figure
        for label, pairs in (("taught", EVALUATION_PAIRS), ("plain", PLAIN_PAIRS))
        for figure in force_figures(
            _pipeline(),
            lora_catalog().parent,
            pairs[: options.pairs],
            cache=options.artwork,
            label=label,
        )
    ]


_PARTS: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "drawn": _drawn,
    "base": _base,
    "single": _single,
    "pairs": _pairs,
    "force": _force,
}


def _pipeline() -> Any:
    return StableDiffusionPipeline.from_pretrained(
        base_model_dir(), safety_checker=None, dtype=torch.float32
    )


def _of_pairs(
    made: Composed, pairs: Sequence[Pair], shown: Sequence[Pair], num_seeds: int
) -> Composed:
    """Return the pictures of some of the pairs."""
    starts = [pairs.index(pair) * num_seeds for pair in shown]
    images = [picture for start in starts for picture in made.images[start : start + num_seeds]]
    return replace(made, images=images)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.evaluate", description=__doc__)
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    parser.add_argument("--out", type=Path, default=Path("out/emoji-world"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--scenes", type=int, default=512, help="drawn scenes a figure")
    parser.add_argument("--each", type=int, default=8, help="pictures a noun and a LoRA")
    parser.add_argument("--pairs", type=int, default=len(EVALUATION_PAIRS))
    parser.add_argument("--seeds", type=int, default=4, help="pictures a pair and method")
    parser.add_argument("--methods", nargs="+", default=list(_METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("\n".join(markdown([]).splitlines()), flush=True)
    for part in options.only:
        print("\n".join(markdown(_PARTS[part](options)).splitlines()[2:]), flush=True)


if __name__ == "__main__":
    main()
