"""``python -m emoji_world.measures.apart``: what ``dino_apart`` sees that DINO min does not.

Prints the tables of ``docs/metrics.md``. Windows and lambda are compared on some sets of instances,
and areas under the curve are taken on other sets with the choice that ``clora_core`` has made.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clora_core.apart import RIVAL_SHARE
from clora_core.dino import DinoScorer
from clora_core.windows import LAYOUTS
from emoji_world import dino_dir
from emoji_world.artwork import load_sprites
from emoji_world.measures.apart_tables import (
    CANDIDATES,
    RIVAL_SHARES,
    failures_table,
    generated_table,
    identity_table,
    mean_areas,
)
from emoji_world.measures.blends import instance_sets
from emoji_world.measures.window_scores import (
    Case,
    Centroids,
    draw_cases,
    draw_references,
    whole_centroids,
    window_centroids,
    window_features,
)

COUNTS = (2, 3)
_SETS_SEED, _CHOOSING_SEED, _TEST_SEED, _REFERENCES_SEED, _ALONE_SEED = 41, 42, 43, 44, 45


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.measures.apart")
    parser.add_argument("--artwork", type=Path, required=True, help="cache of artwork packages")
    parser.add_argument("--sets", type=int, default=22, help="sets of instances a table")
    parser.add_argument("--turns", type=int, default=2, help="scenes of each kind and set")
    parser.add_argument("--references", type=int, default=20, help="drawn scenes an instance")
    parser.add_argument("--skip-choosing", action="store_true", help="leave out the first table")
    parser.add_argument("--pairs", type=int, default=22, help="pairs that are rendered")
    parser.add_argument("--seeds", type=int, default=0, help="pictures a pair; 0 renders none")
    parser.add_argument("--methods", nargs="+", default=["merge", "clora"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    sprites, dino = load_sprites(options.artwork), DinoScorer.load(dino_dir())
    references = draw_references(
        options.references, sprites, np.random.default_rng(_REFERENCES_SEED)
    )
    whole = whole_centroids(references, dino)
    sets = {count: instance_sets(count, 2 * options.sets, _SETS_SEED) for count in COUNTS}
    if not options.skip_choosing:
        random = np.random.default_rng(_CHOOSING_SEED)
        choosing = [
            draw_cases(sets[count][: options.sets], options.turns, sprites, random)
            for count in COUNTS
        ]
        _choose(choosing, dino, references, whole)
    figures = f"DINO min | apart, lambda 0 | apart, lambda {RIVAL_SHARE:g}"
    _show(f"instances | the scene shows | n | {figures}")
    random = np.random.default_rng(_TEST_SEED)
    for count in COUNTS:
        cases = draw_cases(sets[count][options.sets :], options.turns, sprites, random)
        print("\n".join(failures_table(cases, dino, whole)), flush=True)
    if options.seeds:
        made = generated_table(dino, options.pairs, options.seeds, options.methods, options.device)
        print("\n".join(made), flush=True)
    _show("side of windows | n | own above others', AUC | own first")
    random = np.random.default_rng(_ALONE_SEED)
    print("\n".join(identity_table(sprites, options.turns, dino, whole, random)), flush=True)


def _choose(
    choosing: Sequence[Sequence[Case]],
    dino: DinoScorer,
    references: Mapping[str, Sequence[NDArray[np.uint8]]],
    whole: Centroids,
) -> None:
    """Print the mean area of every candidate and lambda, and the lambda that is best."""
    shares = " | ".join(f"{share:g}" for share in RIVAL_SHARES)
    _show(f"instances | windows | against | {shares}")
    in_use: list[list[float]] = []
    for cases in choosing:
        count = len(cases[0].names)
        for name, layout in CANDIDATES.items():
            features = window_features([case.image for case in cases], dino, layout)
            windows = window_centroids(references, dino, layout, whole)
            for against, centroids in (("whole references", whole), ("their windows", windows)):
                means = mean_areas(cases, features, layout, centroids)
                cells = " | ".join(f"{mean:.3f}" for mean in means)
                print(f"| {count} | {name} | {against} | {cells} |", flush=True)
                if layout == LAYOUTS[count] and centroids is whole:
                    in_use.append(means)
    means = np.mean(in_use, axis=0)
    best = RIVAL_SHARES[int(means.argmax())]
    print(
        f"\nThe windows in use are best at lambda {best:g} (mean of {means.max():.3f}); "
        f"the product has {RIVAL_SHARE:g}."
    )


def _show(header: str) -> None:
    """Print the head of a Markdown table."""
    align = " | ".join("---" for _ in header.split("|"))
    print(f"\n| {header} |\n| {align} |", flush=True)


if __name__ == "__main__":
    main()
