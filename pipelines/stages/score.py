"""Scoring: how like its references an image is, for each of its LoRAs.

Minimum, average and maximum are over a row's concept LoRAs (arXiv 2403.19776, section 4.2). If one
of them has no references there is no minimum, and none is made up: the three stay empty and the
LoRAs that have references keep their own scores. Features are stored, so that other metrics of the
same images need no rendering.

``dino_apart`` looks at windows of the image in place of the whole. Their features are computed once
and not stored: they would be as much again for each window, and take more room than the image.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from clora_core.apart import MAX_LORAS, apart_score
from clora_core.windows import LAYOUTS, cut_windows, disjoint, window_boxes
from manifests.places.folder_cache import local_folder
from manifests.rows.table import lora_of
from pipelines.planning.references import reference_id
from pipelines.units.message import UnitMessage
from pipelines.units.schemas import SCORED

Centroids = Mapping[str, np.ndarray]
"""Mean of a LoRA's reference features, by ``reference_id``."""


class Scorer(Protocol):
    """What scoring needs: unit-length features of uint8 images."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 features [image, feature] of RGB images [height, width, 3]."""
        ...


LoadScorer = Callable[[], Scorer]


@dataclass(frozen=True, kw_only=True)
class ScorerSource:
    """Where a scorer comes from: a folder in transformers' format, path or URI; runs on the CPU."""

    dino_dir: str
    num_threads: int = 1

    def __call__(self) -> Scorer:
        """Load the model and return its scorer."""
        import torch

        from clora_core.dino import DinoScorer

        torch.set_num_threads(self.num_threads)
        return DinoScorer.load(local_folder(self.dino_dir))


class ScoreImages:
    """Scores units, one at a time; without a scorer it passes rows on unscored.

    Args:
        scorer: Gives features.
        load_centroids: Gets what they are compared with, when the first unit is scored.
        scores_windows: Whether windows of images are scored, too.
    """

    def __init__(
        self,
        scorer: Scorer | None,
        load_centroids: Callable[[], Centroids],
        *,
        scores_windows: bool = True,
    ) -> None:
        self._scorer = scorer
        self._load_centroids = load_centroids
        self._centroids: Centroids | None = None
        self._scores_windows = scores_windows
        self._at_work = Lock()

    def __call__(self, message: UnitMessage) -> UnitMessage:
        """Return the unit with rows of ``schemas.SCORED``; as it is if there is nothing to score.

        Called by several threads, of which one scores: a scorer has the threads of its own that
        its share of the machine has room for.
        """
        if self._scorer is None or message.facts.is_idle:
            return message
        with self._at_work:
            start = time.perf_counter()
            if self._centroids is None:
                # Not when it is made: Ray would not say which error it was.
                self._centroids = self._load_centroids()
            rows = score_rows(
                message.rows, self._scorer, self._centroids, scores_windows=self._scores_windows
            )
            return message.with_facts(rows, score_seconds=time.perf_counter() - start)


def score_rows(
    rows: pa.Table,
    scorer: Scorer,
    centroids: Centroids,
    *,
    scores_windows: bool = True,
) -> pa.Table:
    """Return ``rows`` (``schemas.GENERATED``) with scores, as ``schemas.SCORED``.

    Args:
        rows: Of one unit.
        scorer: Gives features.
        centroids: What they are compared with.
        scores_windows: Whether they get ``dino_apart``, too.
    """
    values = rows.to_pylist()
    made = [row for row in values if row["pixels"] is not None]
    if made:
        images = [_image(row) for row in made]
        for row, image, feature in zip(made, images, scorer.features(images), strict=True):
            row["dino_features"] = feature.tolist()
            found = _concept_centroids(row, centroids)
            row |= _scores(feature, found)
            if scores_windows:
                row["dino_apart"] = _apart(image, found, scorer)
    return pa.Table.from_pylist(values, schema=SCORED)


def _image(row: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(row["pixels"], np.uint8)
    return flat.reshape(row["height"], row["width"], 3)


def _concept_centroids(
    row: Mapping[str, Any], centroids: Centroids
) -> list[tuple[str, np.ndarray | None]]:
    """Return the name and the centroid of each concept LoRA of a row; None for no references."""
    return [
        (lora["name"], centroids.get(reference_id(row["base_model_digest"], lora_of(lora))))
        for lora in row["loras"]
        if lora["kind"] == "concept"
    ]


def _scores(
    feature: np.ndarray, concepts: Sequence[tuple[str, np.ndarray | None]]
) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        {"lora": name, "score": None if centroid is None else float(feature @ centroid)}
        for name, centroid in concepts
    ]
    scores = [entry["score"] for entry in found]
    if not scores or None in scores:
        return {"lora_scores": found}
    return {
        "lora_scores": found,
        "dino_min": min(scores),
        "dino_avg": sum(scores) / len(scores),
        "dino_max": max(scores),
    }


def _apart(
    image: np.ndarray, concepts: Sequence[tuple[str, np.ndarray | None]], scorer: Scorer
) -> float | None:
    """Return ``dino_apart`` of an image; None where it has none, before any window is looked at."""
    centroids = [centroid for _, centroid in concepts if centroid is not None]
    if len(centroids) < len(concepts) or not 1 <= len(centroids) <= MAX_LORAS:
        return None
    height, width = image.shape[:2]
    boxes = window_boxes(height, width, LAYOUTS[len(centroids)])
    similarities = scorer.features(cut_windows(image, boxes)) @ np.stack(centroids).T
    return apart_score(similarities, disjoint(boxes))
