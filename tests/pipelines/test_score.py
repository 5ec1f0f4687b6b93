from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from engine_kit import BAD_ROW, BASE_MODEL, FakeScorer, generated, lora, row, rows

from clora_core.apart import MAX_LORAS, RIVAL_SHARE
from pipelines.planning.references import reference_id
from pipelines.stages.score import Centroids, ScoreImages, score_rows
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.schemas import SCORED


def centroids_of(*names: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return random references of each LoRA and their centroids."""
    noise = np.random.default_rng(0)
    references = {name: noise.normal(size=(5, 12)).astype(np.float32) for name in names}
    means = {reference_id(BASE_MODEL, lora(name)): r.mean(axis=0) for name, r in references.items()}
    return references, means


def test_scores_are_the_mean_cosine_to_each_lora_s_references():
    references, means = centroids_of("cat", "dog")
    (made,) = score_rows(generated(rows(1)), FakeScorer(), means).to_pylist()
    feature = np.asarray(made["dino_features"])
    assert np.linalg.norm(feature) == pytest.approx(1, abs=1e-6)
    by_hand = {
        name: np.mean([feature @ reference for reference in references[name]])
        for name in ("cat", "dog")
    }
    assert {entry["lora"]: entry["score"] for entry in made["lora_scores"]} == pytest.approx(
        by_hand, abs=1e-6
    )
    assert made["dino_min"] == pytest.approx(min(by_hand.values()), abs=1e-6)
    assert made["dino_max"] == pytest.approx(max(by_hand.values()), abs=1e-6)
    assert made["dino_avg"] == pytest.approx(sum(by_hand.values()) / 2, abs=1e-6)


def test_a_row_is_compared_with_references_of_its_own_base_model():
    references, means = centroids_of("cat")
    means[reference_id("m2", lora("cat"))] = -references["cat"].mean(axis=0)
    unit = [row(0, loras=(lora("cat"),)), row(0, loras=(lora("cat"),), base_model_digest="m2")]
    one, other = score_rows(generated(unit), FakeScorer(), means).to_pylist()
    assert one["dino_features"] == other["dino_features"]
    assert one["dino_min"] == pytest.approx(-other["dino_min"], abs=1e-6)


def test_without_references_of_one_lora_there_is_no_minimum():
    _, means = centroids_of("cat")
    (made,) = score_rows(generated(rows(1)), FakeScorer(), means).to_pylist()
    assert made["dino_min"] is made["dino_avg"] is made["dino_max"] is None
    assert made["dino_apart"] is None
    scores = {entry["lora"]: entry["score"] for entry in made["lora_scores"]}
    assert scores["cat"] is not None
    assert scores["dog"] is None


def test_apart_is_the_worst_lora_of_the_best_two_disjoint_halves():
    """By hand: nine windows of half the image's side at steps of a quarter, and all pairs."""
    _, means = centroids_of("cat", "dog")
    table = generated(rows(1))
    (made,) = score_rows(table, FakeScorer(), means).to_pylist()
    image = np.frombuffer(table["pixels"][0].as_py(), np.uint8).reshape(8, 8, 3)
    corners = list(product((0, 2, 4), repeat=2))
    features = FakeScorer().features([image[y : y + 4, x : x + 4] for y, x in corners])
    cat, dog = (features @ means[reference_id(BASE_MODEL, lora(name))] for name in ("cat", "dog"))
    best = max(
        min(cat[one] - RIVAL_SHARE * dog[one], dog[two] - RIVAL_SHARE * cat[two])
        for one, (y, x) in enumerate(corners)
        for two, (v, u) in enumerate(corners)
        if abs(y - v) == 4 or abs(x - u) == 4
    )
    assert made["dino_apart"] == pytest.approx(best, abs=1e-6)


def test_one_lora_that_has_the_whole_square_image_for_its_window_has_one_score():
    _, means = centroids_of("cat")
    (made,) = score_rows(generated([row(loras=(lora("cat"),))]), FakeScorer(), means).to_pylist()
    assert made["dino_apart"] == made["dino_min"]


class CountingScorer(FakeScorer):
    """Counts what it is shown."""

    num_seen = 0

    def features(self, images):
        self.num_seen += len(images)
        return super().features(images)


def test_windows_are_looked_at_once_and_only_where_they_give_a_score():
    names = [f"l{number}" for number in range(MAX_LORAS + 1)]
    _, means = centroids_of(*names)
    too_many = row(0, loras=tuple(map(lora, names)))
    without_references = row(1)
    scorer = CountingScorer()
    table = score_rows(generated([too_many, without_references]), scorer, means).to_pylist()
    assert [made["dino_apart"] for made in table] == [None, None]
    assert table[0]["dino_min"] is not None
    assert scorer.num_seen == 2
    score_rows(generated([row(2, loras=tuple(map(lora, names[:2])))]), scorer, means)
    assert scorer.num_seen == 2 + 1 + 9


def test_a_job_may_leave_windows_out():
    _, means = centroids_of("cat", "dog")
    scorer = CountingScorer()
    unscored = score_rows(generated(rows(1)), scorer, means, scores_windows=False).to_pylist()
    assert unscored[0]["dino_apart"] is None
    assert unscored[0]["dino_min"] is not None
    assert scorer.num_seen == 1


def test_styles_are_not_scored_and_a_row_without_concepts_has_no_score():
    _, means = centroids_of("ink")
    style = lora("ink", kind="style")
    (made,) = score_rows(generated([row(loras=(style,))]), FakeScorer(), means).to_pylist()
    assert made["lora_scores"] == []
    assert made["dino_min"] is None
    assert made["dino_features"] is not None


def test_a_failed_row_passes_unscored_beside_a_made_one():
    table = score_rows(generated([row(0, prompt=BAD_ROW), row(1)]), FakeScorer(), {})
    assert table.schema == SCORED
    failed, made = table.to_pylist()
    assert failed["dino_features"] is None
    assert failed["failure"]["error"] == "PromptError"
    assert made["dino_features"] is not None


def test_without_a_scorer_rows_pass_as_they_are():
    made = UnitMessage(unit_id="unit", rows=generated(rows(1)), facts=UnitFacts())
    assert ScoreImages(None, dict[str, np.ndarray])(made) is made


def test_references_follow_base_model_tensors_and_words_not_the_name():
    one = reference_id("m", lora("cat"))
    assert one == reference_id("m", replace(lora("cat"), name="kitty", weight=0.5))
    assert one != reference_id("m", lora("cat", trigger="<other>"))
    assert one != reference_id("n", lora("cat"))
    empty: Centroids = {}
    assert empty.get(one) is None
