"""What a manifest is told: every mistake of every row, and good rows with all defaults applied."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from input_kit import row, write_catalog, write_lora

from clora_core.recipe.config import SamplerConfig
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import RawRow
from manifests.text.problems import Problem

SAMPLER = SamplerConfig(num_steps=30, guide_until_step=0)


def model(digest: str, **changes: Any) -> RowModel:
    values = {
        "digest": digest,
        "side_px": 128,
        "lora_fit": LoraFit(model_width=96),
        "sampler": SAMPLER,
    }
    return RowModel(**(values | changes))


@pytest.fixture
def check(tmp_path: Path):
    catalog = read_lora_catalog(str(write_catalog(tmp_path)))
    assert not catalog.problems

    def run(*rows: Any, **options: Any) -> CheckedManifest:
        raw = [
            item if isinstance(item, Problem) else RawRow(place="m.jsonl", line=line, values=item)
            for line, item in enumerate(rows, 1)
        ]
        arguments = {
            "catalog": catalog,
            "lora_files": LoraFiles(),
            "base_models": {"": model("base")},
            "method": "clora",
            "dtype": "float32",
        }
        return check_rows(raw, RowRules(**(arguments | options)), place="m.jsonl")

    return run


def only(checked: CheckedManifest) -> Problem:
    assert len(checked.problems) == 1, [str(problem) for problem in checked.problems]
    assert not checked.rows
    return checked.problems[0]


def test_a_good_row_gets_every_default(check):
    (resolved,) = check(row(shelf="b")).rows
    assert (resolved.method, resolved.width, resolved.height) == ("clora", 128, 128)
    assert resolved.negative_prompt == ""
    assert resolved.row_id == resolved.key[:16]
    assert resolved.sampler == SAMPLER
    assert resolved.carried_json == '{"shelf":"b"}'
    assert [lora.name for lora in resolved.loras] == ["cat", "dog"]
    assert [(lora.subject, lora.trigger, lora.weight) for lora in resolved.loras] == [
        ("cat", "<cat>", 1.0),
        ("dog", "<dog>", 1.0),
    ]
    assert resolved.problem is None


def test_a_lora_carries_the_hash_that_a1111_and_civitai_know_it_by(check, tmp_path: Path):
    (one,) = check(row(loras=["cat"], prompt="a cat")).rows
    content = (tmp_path / "cat.safetensors").read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert one.loras[0].a1111_hash == hashlib.sha256(data).hexdigest()[:12]


def test_five_mistakes_in_five_rows_are_reported_at_once_and_good_rows_stay(check):
    checked = check(
        row(row_id="a", seed=-1),
        row(row_id="b", width=510),
        row(row_id="good"),
        row(row_id="c", loras=["cta"], prompt="a cat"),
        row(row_id="d", prompt="a cat on the beach"),
        row(row_id="e", method="colra"),
    )
    assert [(p.line, p.row_id, p.field) for p in checked.problems] == [
        (1, "a", "seed"),
        (2, "b", "width"),
        (4, "c", "loras"),
        (5, "d", "prompt"),
        (6, "e", "method"),
    ]
    texts = [p.problem for p in checked.problems]
    assert "got -1" in texts[0]
    assert "multiple of 8; the nearest are 504 and 512, got 510" in texts[1]
    assert "no LoRA 'cta' in the catalog; did you mean 'cat'?" in texts[2]
    assert "subject 'dog' of LoRA 'dog' is not in the prompt: 'a cat on the beach'" in texts[3]
    assert "did you mean 'clora'?" in texts[4]
    assert [r.row_id for r in checked.rows] == ["good"]


def test_all_mistakes_of_one_row_are_reported(check):
    bad = row(seed="x", prompt=" ", loras=["nobody", "cat:much"], sampler={"stepz": 3}, height=7)
    fields = {problem.field for problem in check(bad).problems}
    assert fields == {"seed", "prompt", "loras", "loras[1].weight", "sampler.stepz", "height"}


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        (row(seed=True), "seed", "whole number, in digits alone, got True"),
        (row(seed="x7"), "seed", "whole number, in digits alone, got 'x7'"),
        (row(seed=7.5), "seed", "got 7.5"),
        (row(seed=2**63), "seed", "at most 9223372036854775807"),
        (row(seed=None), "seed", "is required and not given"),
        (row(seed=None, sede=3), "sede", "did you mean 'seed'?"),
        (row(prompt=None, prompts="a cat, a dog"), "prompts", "did you mean 'prompt'?"),
        (row(prompt="a cat\x00 and a dog"), "prompt", "there is '\\x00' at position 5"),
        (row(prompt="a cat and a dog " * 400), "prompt", "at most 4000 characters"),
        (row(prompt=["a"]), "prompt", "valid string"),
        (row(row_id=""), "row_id", "should not be empty"),
        (row(row_id="a\nb"), "row_id", "control characters"),
        (row(negative_prompt="\x07"), "negative_prompt", "control characters"),
        (row(width=8192), "width", "less than or equal to 4096"),
        (row(loras=["cat", "cat"]), "loras", "names 'cat' twice"),
        (row(loras=7), "loras", "should be a list of names or structs, got 7"),
        (row(loras=[7]), "loras[0]", "got 7"),
        (row(loras=[{"weight": 1.0}]), "loras[0].lora", "is required"),
        (
            row(loras=[{"lora": "cat", "waight": 1.0}]),
            "loras[0].waight",
            "did you mean 'weight'?",
        ),
        (row(loras="[not json"), "loras", "not valid JSON"),
        (row(loras=["x"] * 1000), "loras", "at most 16 LoRAs, got 1000"),
        (row(sampler="{"), "sampler", "not valid JSON"),
        (row(sampler={"step_size": float("inf")}), "sampler.step_size", "finite number"),
        (row(sampler=3), "sampler", "should be a mapping of settings, got 3"),
        (row(method="single"), "method", "needs 1 concept LoRA(s), the row has 2"),
        (row(method="switch", loras=["ink"]), "method", "needs 1 or more concept LoRA(s)"),
        (row(loras=[]), "method", "'clora' needs a LoRA, the row has none"),
        (row(method="merge", loras=[]), "method", "use 'base'"),
    ],
)
def test_a_mistake_is_told_with_field_value_and_rule(check, values, field, sentence):
    problem = only(check(values))
    assert problem.field == field
    assert sentence in problem.problem


def test_numbers_that_a_table_with_gaps_made_floats_are_integers_again(check):
    (resolved,) = check(row(seed=7.0, width=256.0)).rows
    assert (resolved.seed, resolved.width) == (7, 256)
    assert isinstance(resolved.seed, int)


def test_csv_texts_are_read_as_what_the_column_holds(check):
    values = {
        "prompt": "a cat and a dog",
        "loras": "cat:0.5; dog",
        "seed": "7",
        "width": "256",
        "sampler": '{"num_steps": 5}',
        "row_id": "12",
        "shelf": "4",
    }
    (resolved,) = check(values).rows
    assert [(lora.name, lora.weight) for lora in resolved.loras] == [("cat", 0.5), ("dog", 1.0)]
    assert (resolved.seed, resolved.width, resolved.row_id) == (7, 256, "12")
    assert resolved.sampler == SAMPLER.model_copy(update={"num_steps": 5})
    assert resolved.carried_json == '{"shelf":"4"}'


@pytest.mark.parametrize(
    "loras",
    [
        "cat:0.5|dog",
        '["cat:0.5", "dog"]',
        '[{"lora": "cat", "weight": 0.5}, {"lora": "dog"}]',
        [{"lora": "cat", "weight": 0.5, "subject": None}, "dog"],
    ],
)
def test_every_way_to_write_loras_says_the_same(check, loras):
    (plain,) = check(row(loras=["cat:0.5", "dog"])).rows
    (other,) = check(row(loras=loras)).rows
    assert other.key == plain.key


def test_a_row_may_give_a_lora_another_subject_and_trigger(check):
    use = {"lora": "cat", "subject": "kitten", "trigger": "sks"}
    (resolved,) = check(row(prompt="two Kittens and a dog", loras=[use, "dog"])).rows
    assert (resolved.loras[0].subject, resolved.loras[0].trigger) == ("kitten", "sks")


def test_a_style_needs_no_subject_and_is_no_concept(check):
    (resolved,) = check(row(prompt="a cat", loras=["cat", "ink"], method="single")).rows
    assert [lora.kind for lora in resolved.loras] == ["concept", "style"]


def test_two_loras_with_one_noun_need_it_twice(check):
    loras = ["cat", {"lora": "dog", "subject": "cat"}]
    problem = only(check(row(prompt="a cat on a catwalk", loras=loras)))
    assert "subject 'cat' of LoRA 'dog' is not in the prompt once more" in problem.problem
    assert check(row(prompt="a cat chases a Cat", loras=loras)).rows


def test_every_subject_that_a_prompt_lacks_is_told(check):
    problems = check(row(prompt="a beach")).problems
    assert [problem.problem.split(" of ")[0] for problem in problems] == [
        "subject 'cat'",
        "subject 'dog'",
    ]


def test_a_row_id_that_stands_for_two_rows_is_refused_with_the_first_line(check):
    checked = check(row(row_id="a"), row(row_id="a", seed=8))
    assert len(checked.rows) == 1
    assert "is also the id of line 1" in checked.problems[0].problem


def test_a_row_that_is_there_twice_is_no_mistake(check):
    checked = check(row(row_id="a"), row(row_id="a"), row(), row())
    assert len(checked.rows) == 4
    assert not checked.problems
    assert len({r.key for r in checked.rows}) == 1


def test_a_manifest_without_rows_is_a_problem(check):
    assert "holds no rows" in only(check()).problem


def test_a_line_that_cannot_be_read_stays_among_the_problems_in_its_place(check):
    unreadable = Problem(place="m.jsonl", line=1, field="(row)", problem="is not valid JSON")
    checked = check(unreadable, row(seed=-1), row())
    assert [problem.line for problem in checked.problems] == [1, 2]
    assert len(checked.rows) == 1


def test_a_row_whose_lora_file_is_broken_is_kept_with_the_reason(check, tmp_path: Path):
    path = tmp_path / "cat.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    broken, good = check(row(), row(loras=["dog"])).rows
    assert broken.problem is not None
    assert "cat.safetensors is truncated" in broken.problem
    assert broken.loras[0].digest.startswith("broken:")
    assert good.problem is None


def test_a_lora_of_another_model_family_is_told_apart(check, tmp_path: Path):
    write_lora(tmp_path / "cat.safetensors", width=2048)
    (resolved,) = check(row(prompt="a cat", loras=["cat"])).rows
    assert "is made for SDXL (cross-attention width 2048)" in (resolved.problem or "")


def test_values_that_json_cannot_say_are_carried_as_text_or_null(check):
    import datetime
    import decimal

    carried = {
        "when": datetime.date(2020, 1, 2),
        "price": decimal.Decimal("1.50"),
        "blob": b"\x00\xff",
        "scores": [1.0, float("nan"), float("inf")],
    }
    (resolved,) = check(row(**carried)).rows
    assert json.loads(resolved.carried_json) == {
        "when": "2020-01-02",
        "price": "1.50",
        "blob": "AP8=",
        "scores": [1, None, "inf"],
    }


def test_a_value_nested_too_deeply_is_a_problem_and_no_crash(check):
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert "nested too deeply" in only(check(row(tree=deep))).problem
