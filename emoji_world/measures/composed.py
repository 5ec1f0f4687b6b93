"""The figures the world exists for: two LoRAs in one picture, method against method, paired."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clora_core.dino import DinoScorer, lora_scores, reference_centroid
from emoji_world.bestiary import INSTANCES
from emoji_world.captions import PLACE_PHRASES
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import Figure, of_mean, of_share
from emoji_world.presence import PresenceNet, judge

_NOUN = {instance.name: instance.noun for instance in INSTANCES}
_PAIRS = tuple(
    (one.name, two.name)
    for index, one in enumerate(INSTANCES)
    for two in INSTANCES[index + 1 :]
    if one.noun != two.noun
)
VALIDATION_PAIRS = _PAIRS[::4]
"""Pairs that settings were fitted on."""
EVALUATION_PAIRS = _PAIRS[2::4]
"""Pairs that figures are taken on: none of them fitted anything."""

_PHRASES = tuple(PLACE_PHRASES.values())


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Pictures of one method, in the order of pairs × seeds."""

    method: str
    images: list[NDArray[np.uint8]]
    seconds: float


def render_methods(
    renderer: Renderer,
    methods: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
) -> list[Composed]:
    """Render every pair with every seed by every method: same prompts, same noise."""
    composed: list[Composed] = []
    for method in methods:
        rows = [
            renderer.row(
                f"a {_NOUN[one]} and a {_NOUN[two]} {_PHRASES[(index + turn) % len(_PHRASES)]}",
                (one, two),
                seed,
                method,
            )
            for index, (one, two) in enumerate(pairs)
            for turn, seed in enumerate(seeds)
        ]
        before = len(renderer.seconds)
        images = renderer.render(rows)
        seconds = float(np.mean(renderer.seconds[before:]))
        composed.append(Composed(method=method, images=images, seconds=seconds))
    return composed


def both_present(
    net: PresenceNet,
    composed: Composed,
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
) -> list[bool]:
    """Return for each picture whether the judge finds both of its instances."""
    wanted = [pair for pair in pairs for _ in seeds]
    return [
        all(verdict.present[name] > 0.5 for name in pair)
        for verdict, pair in zip(judge(net, composed.images), wanted, strict=True)
    ]


def composed_figures(
    composed: Sequence[Composed],
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    net: PresenceNet,
    dino: DinoScorer,
    centroids: dict[str, NDArray[np.float32]],
) -> list[Figure]:
    """Return presence of both, min-DINO, and clora's paired difference from the best other."""
    wanted = [pair for pair in pairs for _ in seeds]
    figures: list[Figure] = []
    scores: dict[str, NDArray[np.float32]] = {}
    for made in composed:
        both = both_present(net, made, pairs, seeds)
        aim = "highest, ≥ 0.80" if made.method == "clora" else ""
        figures.append(of_share(f"two LoRAs, {made.method}: both instances present", both, aim))
        features = dino.features(made.images)
        scores[made.method] = np.array(
            [
                lora_scores(feature[None], np.stack([centroids[name] for name in pair])).min()
                for feature, pair in zip(features, wanted, strict=True)
            ]
        )
    for method, values in scores.items():
        figures.append(of_mean(f"min-DINO, {method}", values.tolist()))
    if "clora" in scores and len(scores) > 1:
        best = max((m for m in scores if m != "clora"), key=lambda m: float(scores[m].mean()))
        # Means of pairs, not pictures: seeds of one pair are no independent evidence.
        gain = (scores["clora"] - scores[best]).reshape(len(pairs), len(seeds)).mean(1)
        figures.append(
            of_mean(f"min-DINO, clora less {best}, paired by pair", gain.tolist(), "> 0")
        )
    return figures


def reference_centroids(
    renderer: Renderer, dino: DinoScorer, *, each: int
) -> dict[str, NDArray[np.float32]]:
    """Return every instance's centroid over ``each`` pictures that its LoRA makes alone."""
    centroids: dict[str, NDArray[np.float32]] = {}
    for instance in INSTANCES:
        rows = [
            renderer.row(
                f"a {instance.noun} {_PHRASES[k % len(_PHRASES)]}",
                [instance.name],
                8000 + k,
                "single",
            )
            for k in range(each)
        ]
        centroids[instance.name] = reference_centroid(dino.features(renderer.render(rows)))
    return centroids
