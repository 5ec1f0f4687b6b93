"""``python -m emoji_world.fit``: the sweep behind the preset ``emoji``, one knob at a time.

Validation pairs and seeds only: no figure of the model card and no benchmark uses them. Prints the
share of pictures in which the judge finds both instances, for the preset and for each change of it.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from emoji_world import presence_file
from emoji_world.measures.composed import VALIDATION_PAIRS, judged, render_methods
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import markdown, of_share
from emoji_world.presence import FOUND, load_presence

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
"""What is changed of the preset ``emoji`` for ``clora``, a setting at a time."""

GATED_CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"gate_update_every": 1},
    {"gate_update_every": 2, "gate_update_until": 0.5},
    {"gate_update_every": 1, "gate_update_until": 0.5},
    {"gate_update_every": 2, "gate_update_until": 0.25},
    {"gate_update_every": 2},
    {"gate_update_every": 2, "gate_update_until": 0.66},
    {"gate_update_every": 4, "gate_update_until": 0.92},
    {"step_size": 10.0},
    {"step_size": 40.0},
    {"mask_threshold": 0.3},
    {"mask_threshold": 0.5},
    {"gate_mask_kind": "argmax"},
    {"gate_mask_kind": "soft"},
    {"gate_mask_smoothing": 0.7},
    {"gate_mask_fill_holes": True},
    {"gate_masks_until_step": 15},
    {"gate_first_mask": "base"},
    {"gate_first_mask": "shared"},
    {"gate_mask_source": "base"},
    {"gate_mask_source": "self"},
    {"gate_mask_source": "self", "gate_mask_kind": "balanced"},
    {"gate_base_steps": 5, "gate_mask_source": "base"},
)
"""What is changed of the preset ``emoji`` for ``clora-gated``."""

FREEFUSE_CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"freefuse_steps": 5},
    {"freefuse_steps": 15},
    {"freefuse_negative_bias": 5.0, "freefuse_positive_bias": 7.0},
)
"""What is changed for ``freefuse``; its published biases are 1 and 1, ComfyUI's 5 and 7."""

_CHANGES = {"clora": CHANGES, "clora-gated": GATED_CHANGES, "freefuse": FREEFUSE_CHANGES}
_OTHER_METHODS = (
    "clora-no-update",
    "clora-gated-no-update",
    "merge",
    "composite",
    "switch",
)


def main() -> None:
    """Read the options, render, print a line for each setting."""
    parser = argparse.ArgumentParser(prog="python -m emoji_world.fit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="pictures a pair")
    parser.add_argument("--pairs", type=int, default=len(VALIDATION_PAIRS))
    parser.add_argument("--method", choices=[*_CHANGES, "others"], help="one; all if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    net = load_presence(presence_file())
    pairs = VALIDATION_PAIRS[: options.pairs]
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    trials = [(change, method) for method, changes in _CHANGES.items() for change in changes]
    trials += [({}, method) for method in _OTHER_METHODS]
    if options.method == "others":
        trials = trials[-len(_OTHER_METHODS) :]
    elif options.method:
        trials = [trial for trial in trials if trial[1] == options.method]
    print("\n".join(markdown([]).splitlines()), flush=True)
    for change, method in trials:
        [composed] = render_methods(Renderer(options.device, **change), [method], pairs, seeds)
        name = ", ".join([method, *(f"{key} {_written(value)}" for key, value in change.items())])
        found = judged(net, composed, pairs, seeds)
        figures = [
            of_share(f"{name}: {words}", [each[key] > FOUND for each in found])
            for key, words in (("presence_all", "both present"), ("identity_all", "themselves"))
        ]
        print("\n".join(markdown(figures).splitlines()[2:]), flush=True)


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    main()
