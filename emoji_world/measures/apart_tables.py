"""Tables of what ``dino_apart`` tells apart: one function a table, each returning its lines."""

from collections.abc import Mapping, Sequence

import numpy as np

from clora_core.apart import RIVAL_SHARE
from clora_core.dino import DinoScorer
from clora_core.windows import LAYOUTS, Layout
from emoji_world import presence_file
from emoji_world.artwork import Sprites
from emoji_world.bestiary import INSTANCES
from emoji_world.measures.blends import ALL_THERE, BLEND_WAYS, FAILURES, Random
from emoji_world.measures.composed import EVALUATION_PAIRS, judged, render_methods
from emoji_world.measures.ranking import Area, area_under_curve, area_with_interval
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.window_scores import (
    Case,
    Centroids,
    apart_scores,
    draw_references,
    likenesses,
    whole_centroids,
    whole_scores,
    window_features,
)
from emoji_world.presence import load_presence

RIVAL_SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
CANDIDATES: Mapping[str, Layout] = {
    "1/2, stride 1/4": Layout(side=1 / 2, stride=1 / 4),
    "1/2, stride 1/6": Layout(side=1 / 2, stride=1 / 6),
    "5/12, stride 1/5": Layout(side=5 / 12, stride=1 / 5),
    "1/3, stride 1/3": Layout(side=1 / 3, stride=1 / 3),
    "1/3, stride 1/6": Layout(side=1 / 3, stride=1 / 6),
}
_FIRST_PICTURE_SEED = 5000
_NUM_GENERATED_REFERENCES = 10


def mean_areas(
    cases: Sequence[Case],
    features: Sequence[np.ndarray],
    layout: Layout,
    centroids: Centroids,
) -> list[float]:
    """Return the mean area over all failures at each of ``RIVAL_SHARES``."""
    similarities = likenesses(cases, features, centroids)
    means: list[float] = []
    for share in RIVAL_SHARES:
        scores = apart_scores(cases, similarities, layout, share)
        right = _shown(cases, scores, [ALL_THERE])
        areas = [area_under_curve(right, _shown(cases, scores, [shows])) for shows in FAILURES]
        means.append(float(np.mean(areas)))
    return means


def _shown(cases: Sequence[Case], scores: Sequence[float], shows: Sequence[str]) -> list[float]:
    return [score for case, score in zip(cases, scores, strict=True) if case.shows in shows]


def failures_table(cases: Sequence[Case], dino: DinoScorer, centroids: Centroids) -> list[str]:
    """Return the areas of the figures against each failure, of one number of instances."""
    count = len(cases[0].names)
    figures = _figures(cases, dino, centroids)
    blends = [f"blended, {way}" for way in BLEND_WAYS]
    rows = [("blended, all three ways", blends), *((shows, [shows]) for shows in FAILURES)]
    return [
        f"| {count} | {label} | {_sizes(cases, wrong)} | {_areas(cases, figures, wrong)} |"
        for label, wrong in rows
    ]


def _figures(cases: Sequence[Case], dino: DinoScorer, centroids: Centroids) -> list[list[float]]:
    """Return DINO min, and ``dino_apart`` at lambda 0 and at the product's."""
    layout = LAYOUTS[len(cases[0].names)]
    features = window_features([case.image for case in cases], dino, layout)
    similarities = likenesses(cases, features, centroids)
    return [
        whole_scores(cases, dino, centroids),
        *(apart_scores(cases, similarities, layout, share) for share in (0.0, RIVAL_SHARE)),
    ]


def _sizes(cases: Sequence[Case], wrong: Sequence[str]) -> str:
    shows = [case.shows for case in cases]
    return f"{shows.count(ALL_THERE)}, {sum(map(shows.count, wrong))}"


def _areas(cases: Sequence[Case], figures: Sequence[Sequence[float]], wrong: Sequence[str]) -> str:
    right_groups, wrong_groups = (
        [case.names for case in cases if case.shows in shows] for shows in ([ALL_THERE], wrong)
    )
    return _cells(
        [
            area_with_interval(
                _shown(cases, scores, [ALL_THERE]),
                right_groups,
                _shown(cases, scores, wrong),
                wrong_groups,
            )
            for scores in figures
        ]
    )


def _cells(areas: Sequence[Area]) -> str:
    return " | ".join(f"{a.value:.2f} [{a.low:.2f}, {a.high:.2f}]" for a in areas)


def identity_table(
    sprites: Sprites, turns: int, dino: DinoScorer, centroids: Centroids, random: Random
) -> list[str]:
    """Return how well one instance alone is known from all others by its best window."""
    alone = draw_references(turns, sprites, random)
    cases = [
        Case(names=tuple(centroids), shows=name, image=image)
        for name, images in alone.items()
        for image in images
    ]
    lines: list[str] = []
    for count in (1, 2, 3):
        layout = LAYOUTS[count]
        own: list[float] = []
        others: list[float] = []
        features = window_features([case.image for case in cases], dino, layout)
        for case, likeness in zip(cases, likenesses(cases, features, centroids), strict=True):
            best = dict(zip(case.names, likeness.max(axis=0).tolist(), strict=True))
            own.append(best.pop(case.shows))
            others.append(max(best.values()))
        names = [case.shows for case in cases]
        area = area_with_interval(own, names, others, names)
        first = float(np.mean(np.array(own) > np.array(others)))
        lines.append(f"| {layout.side:.2f} | {len(cases)} | {_cells([area])} | {first:.2f} |")
    return lines


def generated_table(
    dino: DinoScorer, num_pairs: int, num_seeds: int, methods: Sequence[str], device: str
) -> list[str]:
    """Return both figures' areas on composed pictures, labelled by the judge."""
    renderer, net = Renderer(device), load_presence(presence_file())
    centroids = whole_centroids(
        {
            instance.name: renderer.render(
                [
                    renderer.row(f"a {instance.noun}", [instance.name], seed, "single")
                    for seed in range(_NUM_GENERATED_REFERENCES)
                ]
            )
            for instance in INSTANCES
        },
        dino,
    )
    pairs = EVALUATION_PAIRS[:num_pairs]
    seeds = range(_FIRST_PICTURE_SEED, _FIRST_PICTURE_SEED + num_seeds)
    wanted = [pair for pair in pairs for _ in seeds]
    lines: list[str] = []
    for method in methods:
        (made,) = render_methods(renderer, [method], pairs, seeds)
        found = [each["presence_all"] > 0.5 for each in judged(net, made, pairs, seeds)]
        cases = [
            Case(names=pair, shows=ALL_THERE if both else "not", image=image)
            for pair, both, image in zip(wanted, found, made.images, strict=True)
        ]
        cells = _areas(cases, _figures(cases, dino, centroids), ["not"])
        lines.append(f"| 2 | {method}, generated | {_sizes(cases, ['not'])} | {cells} |")
    return lines
