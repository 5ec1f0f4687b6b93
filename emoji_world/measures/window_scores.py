"""Scores of drawn scenes by whole images and by windows, under every choice that is to be made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clora_core.apart import apart_score
from clora_core.dino import DinoScorer, reference_centroid
from clora_core.windows import Layout, cut_windows, disjoint, window_boxes
from emoji_world.artwork import Sprites
from emoji_world.bestiary import INSTANCES, Instance
from emoji_world.measures.blends import ALL_THERE, FAILURES, Random, draw_case
from emoji_world.scenes import draw_scene, of_instance

Centroids = Mapping[str, NDArray[np.float32]]
"""Mean features of what an instance looks like alone, by its name."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A picture, and what is known of it.

    Attributes:
        names: The instances that should be there; also what its resemblance to others comes from.
        shows: ``blends.ALL_THERE`` or what is wrong with it.
        image: RGB uint8 [height, width, 3].
    """

    names: tuple[str, ...]
    shows: str
    image: NDArray[np.uint8]


def draw_cases(
    sets: Sequence[tuple[Instance, ...]], turns: int, sprites: Sprites, random: Random
) -> list[Case]:
    """Return ``turns`` scenes of every set with all instances there and of each failure."""
    return [
        Case(
            names=tuple(instance.name for instance in instances),
            shows=shows,
            image=draw_case(instances, shows, sprites, random),
        )
        for instances in sets
        for _ in range(turns)
        for shows in (ALL_THERE, *FAILURES)
    ]


def draw_references(
    number: int, sprites: Sprites, random: Random
) -> dict[str, list[NDArray[np.uint8]]]:
    """Return ``number`` scenes of each instance alone."""
    return {
        instance.name: [
            draw_scene([of_instance(instance)], sprites, random).image for _ in range(number)
        ]
        for instance in INSTANCES
    }


def whole_centroids(
    references: Mapping[str, Sequence[NDArray[np.uint8]]], dino: DinoScorer
) -> dict[str, NDArray[np.float32]]:
    """Return the centroids of whole reference images, which is what the product compares with."""
    return {name: reference_centroid(dino.features(images)) for name, images in references.items()}


def window_centroids(
    references: Mapping[str, Sequence[NDArray[np.uint8]]],
    dino: DinoScorer,
    layout: Layout,
    whole: Centroids,
) -> dict[str, NDArray[np.float32]]:
    """Return the centroids of the window of each reference that is most like all references."""
    found: dict[str, NDArray[np.float32]] = {}
    for name, images in references.items():
        best = [
            features[(features @ whole[name]).argmax()]
            for features in window_features(images, dino, layout)
        ]
        found[name] = reference_centroid(np.stack(best))
    return found


def whole_scores(cases: Sequence[Case], dino: DinoScorer, centroids: Centroids) -> list[float]:
    """Return DINO min of each case."""
    features = np.concatenate([dino.features([case.image]) for case in cases])
    return [
        min(float(feature @ centroids[name]) for name in case.names)
        for case, feature in zip(cases, features, strict=True)
    ]


def window_features(
    images: Sequence[NDArray[np.uint8]], dino: DinoScorer, layout: Layout
) -> list[NDArray[np.float32]]:
    """Return the features of every window of each image, [window, feature]."""
    return [
        dino.features(cut_windows(image, window_boxes(*image.shape[:2], layout)))
        for image in images
    ]


def likenesses(
    cases: Sequence[Case], features: Sequence[NDArray[np.float32]], centroids: Centroids
) -> list[NDArray[np.float32]]:
    """Return how like each instance of its case each window is, [window, instance]."""
    return [
        windows @ np.stack([centroids[name] for name in case.names], axis=1)
        for case, windows in zip(cases, features, strict=True)
    ]


def apart_scores(
    cases: Sequence[Case],
    similarities: Sequence[NDArray[np.float32]],
    layout: Layout,
    rival_share: float,
) -> list[float]:
    """Return ``dino_apart`` of each case."""
    scores = [
        apart_score(
            likeness,
            disjoint(window_boxes(*case.image.shape[:2], layout)),
            rival_share=rival_share,
        )
        for case, likeness in zip(cases, similarities, strict=True)
    ]
    return [-np.inf if score is None else score for score in scores]
