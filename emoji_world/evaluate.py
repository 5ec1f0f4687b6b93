"""``python -m emoji_world.evaluate``: measure the committed weights and show what they make.

Prints the table of the model card and writes sample sheets. Pairs and seeds are none of those that
settings were fitted on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from clora_core.dino import DinoScorer
from emoji_world import base_model_dir, dino_dir, presence_file
from emoji_world.measures.composed import (
    EVALUATION_PAIRS,
    Composed,
    composed_figures,
    reference_centroids,
    render_methods,
)
from emoji_world.measures.drawn import drawn_figures
from emoji_world.measures.generated import base_figures, single_figures
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.sheet import write_method_sheet
from emoji_world.measures.table import Figure, markdown, of_mean
from emoji_world.presence import load_presence

Pair = tuple[str, str]

_METHODS = ("clora", "merge", "composite", "switch")
_FIRST_SEED = 5000
_PAIRS_SHOWN = 10


def _show(figures: list[Figure]) -> None:
    body = markdown(figures).splitlines()[2:]
    print("\n".join(body), flush=True)


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
    parser.add_argument("--scenes", type=int, default=512, help="drawn scenes a figure")
    parser.add_argument("--each", type=int, default=8, help="pictures a noun and a LoRA")
    parser.add_argument("--pairs", type=int, default=len(EVALUATION_PAIRS))
    parser.add_argument("--seeds", type=int, default=4, help="pictures a pair and method")
    parser.add_argument("--methods", nargs="+", default=list(_METHODS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    net = load_presence(presence_file())
    dino = DinoScorer.load(dino_dir())
    print("\n".join(markdown([]).splitlines()), flush=True)
    pipeline = StableDiffusionPipeline.from_pretrained(
        base_model_dir(), safety_checker=None, dtype=torch.float32
    )
    _show(
        drawn_figures(
            pipeline,
            net,
            dino,
            cache=options.artwork,
            tokenizer=base_model_dir() / "tokenizer",
            scenes=options.scenes,
        )
    )
    renderer = Renderer(options.device)
    _show(base_figures(renderer, net, each=options.each))
    _show([of_mean("seconds a plain picture", renderer.seconds, "≤ 1")])
    _show(single_figures(renderer, net, each=options.each))
    pairs, seeds = (
        EVALUATION_PAIRS[: options.pairs],
        range(_FIRST_SEED, _FIRST_SEED + options.seeds),
    )
    composed = render_methods(renderer, options.methods, pairs, seeds)
    centroids = reference_centroids(renderer, dino, each=max(2, options.each))
    _show(composed_figures(composed, pairs, seeds, net, dino, centroids))
    for made in composed:
        _show([of_mean(f"seconds a picture, {made.method}", [made.seconds])])
    shown = pairs[:: max(1, len(pairs) // _PAIRS_SHOWN)][:_PAIRS_SHOWN]
    chosen = [_of_pairs(made, pairs, shown, options.seeds) for made in composed]
    write_method_sheet(options.out / "methods.webp", chosen, shown, options.seeds)


if __name__ == "__main__":
    main()
