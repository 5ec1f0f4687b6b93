"""Rows that name their base model: each is checked, completed and keyed as on that model alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from input_kit import row, write_catalog, write_lora

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.key import row_key
from clora_core.recipe.row import Row
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import RawRow
from manifests.text.problems import Problem

Check = Callable[..., CheckedManifest]


def start_from(steps: int) -> SamplerConfig:
    return SamplerConfig(num_steps=steps, guide_until_step=0)


MODELS = {
    "": RowModel(
        digest="d0", side_px=128, lora_fit=LoraFit(model_width=96), sampler=start_from(30)
    ),
    "portraits": RowModel(
        digest="d1", side_px=256, lora_fit=LoraFit(model_width=96), sampler=start_from(50)
    ),
    "large": RowModel(
        digest="d2", side_px=512, lora_fit=LoraFit(model_width=32), sampler=start_from(30)
    ),
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RowRules:
    """Cat and dog fit models of width 96, fox fits one of width 32."""
    folder = tmp_path_factory.mktemp("loras")
    catalog = write_catalog(folder, ["cat", "dog", "fox"])
    write_lora(folder / "fox.safetensors", width=32)
    return RowRules(
        catalog=read_lora_catalog(str(catalog)),
        lora_files=LoraFiles(),
        base_models=MODELS,
        method="clora",
        dtype="float32",
    )


def checked(rules: RowRules, *rows: dict[str, Any]) -> CheckedManifest:
    raw = [RawRow(place="m.jsonl", line=n, values=values) for n, values in enumerate(rows, 1)]
    return check_rows(raw, rules, place="m.jsonl")


def only_problem(found: CheckedManifest) -> Problem:
    (problem,) = found.problems
    assert not found.rows
    return problem


good_rows = st.builds(
    lambda seed, width, steps: row(
        seed=seed, width=width, sampler=None if steps is None else {"num_steps": steps}
    ),
    st.integers(0, 99),
    st.sampled_from([None, 64]),
    st.sampled_from([None, 20]),
)


@given(st.lists(st.tuples(good_rows, st.sampled_from(["", "portraits"])), min_size=1, max_size=8))
def test_a_row_becomes_what_it_becomes_where_its_base_model_is_the_only_one(
    rules: RowRules, named: list[tuple[dict[str, Any], str]]
):
    """All but the name that the row gives it, which is carried along."""
    together = checked(rules, *(values | {"base_model": name} for values, name in named))
    for (values, name), found in zip(named, together.rows, strict=True):
        (alone,) = checked(replace(rules, base_models={"": MODELS[name]}), values).rows
        carried = {"base_model": name} if name else {}
        assert json.loads(found.carried_json) == carried
        assert replace(found, carried_json="{}") == alone


def test_a_key_holds_the_digest_of_the_rows_own_base_model(rules: RowRules):
    found = checked(rules, row(), row(base_model="portraits"))
    by_hand = [
        row_key(
            Row(
                prompt=one.prompt,
                loras=one.loras,
                seed=7,
                method="clora",
                width=side_px,
                height=side_px,
                sampler=start_from(steps),
                base_model_digest=digest,
            ),
            dtype="float32",
        )
        for one, (digest, side_px, steps) in zip(
            found.rows, [("d0", 128, 30), ("d1", 256, 50)], strict=True
        )
    ]
    assert [one.key for one in found.rows] == by_hand


def test_keys_are_those_of_before_rows_could_name_a_base_model(rules: RowRules):
    """Recorded then: what is in people's outputs is not made again."""
    rows = [
        {"prompt": "a cat on the beach", "seed": 7},
        {"prompt": "a dog", "seed": 8, "negative_prompt": "blur", "width": 64, "shelf": "b"}
        | {"sampler": {"num_steps": 20}},
    ]
    found = checked(rules, *({"loras": [], "method": "base"} | values for values in rows))
    assert [one.key for one in found.rows] == [
        "d1011590ed0723c3bdfd6ea22bdf08f4f5bbbb93af226c3b0a6f1eb59377f651",
        "838d3b0110488df0a2bd5042c81570fce7732b8422137cb784f8209df244d609",
    ]


def test_an_unknown_base_model_comes_with_the_nearest(rules: RowRules):
    problem = only_problem(checked(rules, row(base_model="portrait", row_id="r1")))
    assert str(problem) == (
        "line 1, row 'r1', base_model: is not among the job's base_models, got 'portrait'; "
        "did you mean 'portraits'?"
    )
    problem = only_problem(checked(rules, row(base_model="x")))
    assert "got 'x'; known: large, portraits" in problem.problem


def test_a_job_without_further_base_models_says_so(rules: RowRules):
    single = replace(rules, base_models={"": MODELS[""]})
    problem = only_problem(checked(single, row(base_model="sd15")))
    assert problem.field == "base_model"
    assert "got 'sd15'; it has none: name it there, or give a column" in problem.problem


def test_an_unknown_base_model_hides_no_other_mistake_and_makes_none_up(rules: RowRules):
    """45 guided steps are too many on the default model, but not on what may be meant."""
    found = checked(
        rules, row(base_model="x", loras=["cta"], seed=-1, sampler={"guide_until_step": 45})
    )
    assert {problem.field for problem in found.problems} == {"base_model", "loras", "seed"}


def test_settings_are_checked_against_what_the_rows_base_model_starts_from(rules: RowRules):
    many = {"sampler": {"guide_until_step": 45}}
    assert "must be <= num_steps (30)" in only_problem(checked(rules, row(**many))).problem
    assert not checked(rules, row(base_model="portraits", **many)).problems


@pytest.mark.parametrize("value", [3, ["portraits"], {"name": "portraits"}])
def test_a_base_model_is_named_by_a_text(rules: RowRules, value: object):
    assert only_problem(checked(rules, row(base_model=value))).field == "base_model"


def test_a_lora_fails_the_rows_whose_base_model_it_does_not_fit_and_no_others(rules: RowRules):
    fox = {"prompt": "a fox", "loras": ["fox"]}
    found = checked(rules, row(**fox), row(base_model="large", **fox), row())
    assert not found.problems
    misfit, fitting, other = found.rows
    assert fitting.problem is other.problem is None
    assert misfit.problem is not None
    assert "is made for another family (cross-attention width 32)" in misfit.problem
    assert "its row's base model is another family (cross-attention width 96)" in misfit.problem
    assert misfit.loras[0].digest.startswith("broken:")
    assert [name for name, _ in rules.lora_files.broken] == ["fox"]


def test_a_lora_file_is_read_once_for_all_base_models(tmp_path: Path):
    catalog = read_lora_catalog(str(write_catalog(tmp_path)))
    files = LoraFiles()
    before = files.state(catalog["cat"], LoraFit(model_width=96))
    Path(catalog["cat"].uri).unlink()
    assert files.state(catalog["cat"], LoraFit(model_width=None)) == before
    assert before.info is not None
    misfit = files.state(catalog["cat"], LoraFit(model_width=32))
    assert misfit.digest == f"broken:{before.info.file_sha256}"
