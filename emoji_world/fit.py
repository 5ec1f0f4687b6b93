"""``python -m emoji_world.fit``: the sweep behind the preset ``emoji``, one knob at a time.

Validation pairs and seeds only: no figure of the model card and no benchmark uses them. Prints the
share of pictures in which the judge finds both instances, for the preset and for each change of it.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from emoji_world import presence_file
from emoji_world.measures.composed import VALIDATION_PAIRS, both_present, render_methods
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import markdown, of_share
from emoji_world.presence import load_presence

_FIRST_SEED = 100

CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"step_size": 5.0},
    {"step_size": 60.0},
    {"mask_threshold": 0.25},
    {"mask_threshold": 0.55},
    {"guidance_scale": 2.5},
    {"guidance_scale": 6.0},
    {"num_refine_updates": 0},
    {"num_refine_updates": 8},
    {"guide_until_step": 25},
)
"""What is changed of the preset ``emoji``, a setting at a time."""

_OTHER_METHODS = ("clora-no-update", "merge", "composite", "switch")


def main() -> None:
    """Read the options, render, print a line for each setting."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.fit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="pictures a pair")
    parser.add_argument("--pairs", type=int, default=len(VALIDATION_PAIRS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    net = load_presence(presence_file())
    pairs = VALIDATION_PAIRS[: options.pairs]
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    trials = [(change, "clora") for change in CHANGES]
    trials += [({}, method) for method in _OTHER_METHODS]
    print("\n".join(markdown([]).splitlines()), flush=True)
    for change, method in trials:
        [composed] = render_methods(Renderer(options.device, **change), [method], pairs, seeds)
        name = ", ".join([method, *(f"{key} {value:g}" for key, value in change.items())])
        figure = of_share(name, both_present(net, composed, pairs, seeds))
        print(markdown([figure]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
