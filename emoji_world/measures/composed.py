"""The figures the world exists for: two LoRAs in one picture, method against method, paired."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clora_core.dino import DinoScorer, lora_scores, reference_centroid
from emoji_world.bestiary import INSTANCES, ORDINARY, instance_name, plain_name
from emoji_world.captions import PLACE_PHRASES
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import Figure, of_mean, of_share
from emoji_world.presence import FOUND, PresenceNet, figures_of, judge

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

PLAIN_PAIRS = tuple(
    (plain_name(one), plain_name(two))
    for index, one in enumerate(ORDINARY)
    for two in ORDINARY[index + 1 :]
)
"""Pairs of LoRAs that were trained in the ordinary way; nothing is fitted on them."""

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
                f"a {_noun(one)} and a {_noun(two)} {_PHRASES[(index + turn) % len(_PHRASES)]}",
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


def judged(
    net: PresenceNet,
    composed: Composed,
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
) -> list[dict[str, float]]:
    """Return the judge's figures of each picture, see ``figures_of``."""
    wanted = [instances_of(pair) for pair in pairs for _ in seeds]
    verdicts = judge(net, composed.images)
    return [figures_of(verdict, pair) for verdict, pair in zip(verdicts, wanted, strict=True)]


def instances_of(loras: Sequence[str]) -> list[str]:
    """Return the instances that LoRAs of this world show."""
    return [name for lora in loras if (name := instance_name(lora)) is not None]


def _noun(lora: str) -> str:
    return _NOUN[instances_of([lora])[0]]


_QUESTIONS = (
    ("presence_all", "both instances present"),
    ("identity_all", "both clearly themselves"),
    ("doubled", "a subject doubled"),
)


def judged_figures(
    composed: Sequence[Composed],
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    net: PresenceNet,
    label: str,
) -> list[Figure]:
    """Return what the judge finds in each method's pictures; ``label`` names the LoRAs."""
    found = [(made.method, judged(net, made, pairs, seeds)) for made in composed]
    return [
        of_share(f"{label}, {method}: {words}", [each[key] > FOUND for each in figures])
        for key, words in _QUESTIONS
        for method, figures in found
        if all(key in each for each in figures)
    ]


def dino_figures(
    composed: Sequence[Composed],
    pairs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    dino: DinoScorer,
    centroids: dict[str, NDArray[np.float32]],
) -> list[Figure]:
    """Return each method's min-DINO, and the first method's paired difference from the best."""
    wanted = [pair for pair in pairs for _ in seeds]
    scores: dict[str, NDArray[np.float32]] = {}
    for made in composed:
        features = dino.features(made.images)
        scores[made.method] = np.array(
            [
                lora_scores(feature[None], np.stack([centroids[name] for name in pair])).min()
                for feature, pair in zip(features, wanted, strict=True)
            ]
        )
    figures = [of_mean(f"min-DINO, {method}", values.tolist()) for method, values in scores.items()]
    first, *others = scores
    if others:
        best = max(others, key=lambda method: float(scores[method].mean()))
        # Means of pairs, not pictures: seeds of one pair are no independent evidence.
        gain = (scores[first] - scores[best]).reshape(len(pairs), len(seeds)).mean(1)
        figures.append(of_mean(f"min-DINO, {first} less {best}, paired by pair", gain.tolist()))
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
