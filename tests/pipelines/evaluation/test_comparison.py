"""Every figure of the fixture, worked out by hand."""

import csv
import io
import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_kit import BAD_ROW, commit, lora, row, rows
from evaluation_kit import FIXTURE, result_row, table

from pipelines.evaluation.comparison import Arm, compare
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.evaluation.interference import interference, likeness_alone
from pipelines.evaluation.results import read_results
from pipelines.evaluation.tables import markdown, table_files
from pipelines.planning.references import reference_id
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import rows_name
from pipelines.units.damages import Damages


@pytest.fixture
def evaluation() -> Evaluation:
    results = read_results(table(FIXTURE), {"k1": {"presence_all": 1.0}})
    comparison = compare(results)
    return Evaluation(
        results=tuple(results),
        comparison=comparison,
        interferences=(interference(results, arm="clora", alone={"a": (0.9, 3)}),),
        failures=(),
        reasons=(),
    )


def arm(evaluation: Evaluation, name: str) -> Arm:
    return next(each for each in evaluation.comparison.arms if each.name == name)


def test_means_are_over_images_and_intervals_over_prompts_and_sets(evaluation: Evaluation):
    clora, merge = arm(evaluation, "clora"), arm(evaluation, "merge")
    assert clora.means["dino_min"].mean == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert clora.means["dino_min"].num_groups == 2
    assert clora.means["dino_max"].mean == pytest.approx((0.75 + 0.5 + 1.0) / 3)
    assert clora.means["unet_evaluations"].mean == pytest.approx(50 / 3)
    assert merge.means["dino_min"].mean == pytest.approx((0.25 + 0 + 1 + 0.75) / 4)
    assert merge.means["seconds"].mean == pytest.approx(7 / 4)
    assert clora.means["mask_leakage"].mean == pytest.approx(0.375)
    assert clora.means["mask_leakage"].num_values == 1
    assert clora.means["presence_all"].num_values == 1
    assert "mask_leakage" not in merge.means
    assert clora.keys == ("k1", "k2", "k3")


def test_averaging_over_seeds_first_gives_another_minimum(evaluation: Evaluation):
    """p1: a is 0.5, b is 0.5 on average; p2: the minimum of 1.0 and 0.5."""
    averaged = arm(evaluation, "clora").averaged_first
    assert averaged is not None
    assert averaged.mean == pytest.approx((0.5 + 0.5) / 2)


def test_differences_are_of_equal_prompts_seeds_and_settings_alone(evaluation: Evaluation):
    (difference,) = evaluation.comparison.differences
    assert (difference.arm, difference.reference) == ("merge", "clora")
    assert difference.num_pairs == 3
    change = difference.by_metric["dino_min"]
    assert change.mean == pytest.approx(((0.25 - 0.5) + (0 - 0.25) + (0.75 - 0.5)) / 3)
    assert change.num_groups == 2
    assert difference.by_metric_over_sets["dino_min"].num_groups == 2


def test_settings_that_differ_make_arms_of_their_own_and_pair_with_their_like():
    other = json.dumps({"num_steps": 50})
    fixture = [
        *FIXTURE,
        result_row("k8", "clora", 0, {"a": 0.75, "b": 0.75}, sampler_json=other),
        result_row("k9", "merge", 0, {"a": 0.5, "b": 0.75}, sampler_json=other),
    ]
    comparison = compare(read_results(table(fixture)))
    found = {(d.arm, d.reference): d.num_pairs for d in comparison.differences}
    assert found == {
        ("merge (num_steps 30)", "clora (num_steps 30)"): 3,
        ("merge (num_steps 50)", "clora (num_steps 50)"): 1,
    }


def test_lora_sets_have_their_own_means(evaluation: Evaluation):
    cells = {
        (score.lora_set, score.arm): (score.mean, score.num_images)
        for score in evaluation.comparison.sets
        if score.metric == "dino_min"
    }
    assert cells[("a + b", "clora")] == pytest.approx((0.375, 2))
    assert cells[("a + c", "merge")] == pytest.approx((0.75, 1))


def test_interference_is_a_lora_s_likeness_beside_each_other_one(evaluation: Evaluation):
    (matrix,) = evaluation.interferences
    assert matrix.loras == ("a", "b", "c")
    assert matrix.scores[0] == pytest.approx((0.9, 0.5, 1.0))
    assert matrix.scores[1] == (pytest.approx(0.5), None, None)
    assert matrix.counts[0] == (3, 2, 1)


def test_likeness_alone_leaves_each_reference_out_of_its_own_mean():
    one, two, three = np.eye(3)[[0, 0, 1]]
    # Each against the mean of the others: (0.5, 0.5, 0).
    assert likeness_alone([one, two, three]) == pytest.approx(1 / 3)
    assert likeness_alone([one]) is None


def test_the_order_of_rows_changes_no_byte_of_any_file(evaluation: Evaluation):
    shuffled = list(FIXTURE)
    random.Random(3).shuffle(shuffled)
    results = read_results(table(shuffled), {"k1": {"presence_all": 1.0}})
    again = Evaluation(
        results=tuple(results),
        comparison=compare(results),
        interferences=(interference(results, arm="clora", alone={"a": (0.9, 3)}),),
        failures=(),
        reasons=(),
    )
    assert table_files(again) == table_files(evaluation)


def test_every_number_can_be_made_again_from_the_lines_of_scores_csv(evaluation: Evaluation):
    files = table_files(evaluation)
    lines = list(csv.DictReader(io.StringIO(files["scores.csv"].decode())))
    told = json.loads(files["table.json"])
    for each in told["arms"]:
        mine = [line for line in lines if line["key"] in each["keys"]]
        for metric, interval in each["means"].items():
            values = [float(line[metric]) for line in mine if line[metric]]
            assert interval["mean"] == pytest.approx(sum(values) / len(values))
    means = list(csv.DictReader(io.StringIO(files["table.csv"].decode())))
    assert {line["kind"] for line in means} >= {"mean over prompts", "less clora, over prompts"}


def test_arms_on_several_base_models_are_apart_and_compared_each_on_its_own():
    """Settings that differ only because presets follow the model are not part of a name."""
    fine = json.dumps({"num_steps": 50})
    more = json.dumps({"num_steps": 60})
    fixture = [
        result_row("k1", "clora", 0, {"a": 0.5, "b": 0.75}),
        result_row("k2", "merge", 0, {"a": 0.25, "b": 0.75}),
        result_row("k3", "clora", 0, {"a": 1.0, "b": 1.0}, base_model_digest="m2" * 9),
        result_row("k4", "merge", 0, {"a": 0.0, "b": 1.0}, base_model_digest="m2" * 9),
        result_row(
            "k5", "merge", 1, {"a": 0.0, "b": 1.0}, base_model_digest="m3", sampler_json=fine
        ),
        result_row(
            "k6", "merge", 1, {"a": 0.0, "b": 1.0}, base_model_digest="m3", sampler_json=more
        ),
    ]
    results = read_results(table(fixture), base_models={"m1": "emoji-world", "m3": "sd15"})
    comparison = compare(results)
    assert {arm.name for arm in comparison.arms} == {
        "clora (on emoji-world)",
        "merge (on emoji-world)",
        "clora (on m2m2m2m2m2m2)",
        "merge (on m2m2m2m2m2m2)",
        "merge (on sd15, num_steps 50)",
        "merge (on sd15, num_steps 60)",
    }
    differences = {each.arm: each for each in comparison.differences}
    assert set(differences) == {"merge (on emoji-world)", "merge (on m2m2m2m2m2m2)"}
    for name, by in (("emoji-world", -0.25), ("m2m2m2m2m2m2", -1.0)):
        difference = differences[f"merge (on {name})"]
        assert difference.reference == f"clora (on {name})"
        assert difference.num_pairs == 1
        assert difference.by_metric["dino_min"].mean == pytest.approx(by)


def test_what_a_lora_reaches_alone_is_that_on_the_arms_base_model(tmp_path: Path):
    storage, references = (LocalStorage(tmp_path / name) for name in ("out", "references"))
    by_hand: dict[str, float | None] = {}
    for model, first_seed in (("m1", 0), ("m2", 50)):
        alone = [
            row(seed, loras=(lora("cat"),), method="single", base_model_digest=model)
            for seed in range(first_seed, first_seed + 3)
        ]
        commit(references, model, alone)
        features = pq.read_table(io.BytesIO(references.read(rows_name(model))))["dino_features"]
        by_hand[f"clora (on {model})"] = likeness_alone(np.asarray(features.to_pylist()))
        centroids = {reference_id(model, one): np.ones(12) for one in row().loras}
        commit(storage, model, [row(9, base_model_digest=model)], centroids=centroids)
    found = evaluate(storage, damages=Damages(note=print), references=references)
    told = {
        each.arm: dict(zip(each.loras, each.scores, strict=True)) for each in found.interferences
    }
    assert {arm: scores["cat"][0] for arm, scores in told.items()} == pytest.approx(by_hand)
    assert len(set(by_hand.values())) == 2


def test_the_markdown_has_no_cell_that_a_name_could_break(evaluation: Evaluation):
    fixture = [result_row("k", "clora", 0, {"<b>|": 0.5, "b": 0.75})]
    results = read_results(table(fixture))
    told = markdown(
        Evaluation(
            results=tuple(results),
            comparison=compare(results),
            interferences=(),
            failures=(),
            reasons=(("generate, X: |<script>", 2),),
        )
    )
    assert "&lt;b>\\|" in told
    assert "<" not in told
    widths = {line.count(" | ") for line in markdown(evaluation).splitlines()[:4] if "|" in line}
    assert len(widths) == 1


def test_an_output_is_evaluated_from_what_is_committed(tmp_path: Path):
    storage = LocalStorage(tmp_path / "out")
    references = LocalStorage(tmp_path / "references")
    commit(storage, "u1", [*rows(3), row(4, prompt=BAD_ROW), row(5, prompt=BAD_ROW)])
    for unit, each in enumerate(rows(2)[0].loras):
        alone = [row(seed, loras=(each,), method="single") for seed in range(3)]
        commit(references, f"r{unit}", alone)
    found = evaluate(storage, damages=Damages(note=print), references=references)
    assert len(found.results) == 3
    assert {result.values["mask_leakage"] for result in found.results} == {0.375}
    assert found.reasons == (("prompt, PromptError: no subject in it", 2),)
    assert len(found.failures) == 2
    # Without scores there is nothing to interfere, and nothing is made up.
    assert found.interferences[0].loras == ()


def test_an_output_with_nothing_in_it_says_so(tmp_path: Path):
    assert (
        markdown(evaluate(LocalStorage(tmp_path / "none"), damages=Damages(note=print)))
        == "No images.\n"
    )
