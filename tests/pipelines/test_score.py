from dataclasses import replace

import numpy as np
import pytest
from engine_kit import BAD_ROW, BASE_MODEL, FakeScorer, generated, lora, row, rows

from pipelines.planning.references import reference_id
from pipelines.stages.score import Centroids, ScoreImages, score_rows
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
    scores = {entry["lora"]: entry["score"] for entry in made["lora_scores"]}
    assert scores["cat"] is not None
    assert scores["dog"] is None


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
    unscored = ScoreImages(None, dict[str, np.ndarray])
    assert unscored is not None
    (made,) = score_rows(generated(rows(1)), None, {}).to_pylist()
    assert made["dino_features"] is None
    assert made["pixels"] is not None


def test_references_follow_base_model_tensors_and_words_not_the_name():
    one = reference_id("m", lora("cat"))
    assert one == reference_id("m", replace(lora("cat"), name="kitty", weight=0.5))
    assert one != reference_id("m", lora("cat", trigger="<other>"))
    assert one != reference_id("n", lora("cat"))
    empty: Centroids = {}
    assert empty.get(one) is None
