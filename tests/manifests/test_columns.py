"""Columns of a manifest: those that are read, those that are carried, and mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from input_kit import row, write_catalog

from clora_core.recipe.config import SamplerConfig
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.columns import MAX_NAMES
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import RawRow

Check = Callable[..., CheckedManifest]


def rules(catalog: Path) -> RowRules:
    sampler = SamplerConfig(guide_until_step=0)
    model = RowModel(digest="d", side_px=128, lora_fit=LoraFit(model_width=96), sampler=sampler)
    return RowRules(
        catalog=read_lora_catalog(str(catalog)),
        lora_files=LoraFiles(),
        base_models={"": model},
        method="clora",
        dtype="float32",
    )


@pytest.fixture
def check(tmp_path: Path) -> Check:
    held_against = rules(write_catalog(tmp_path))

    def run(*rows: dict[str, Any], place: str = "m.jsonl", **options: Any) -> CheckedManifest:
        raw = [RawRow(place=place, line=n, values=values) for n, values in enumerate(rows, 1)]
        return check_rows(raw, held_against, place=place, **options)

    return run


@pytest.mark.parametrize(
    "column",
    [
        "loss", "scene", "notes", "promoted", "weights_file", "template", "background", "item",
        "look", "variant", "split", "shelf", "speed", "see", "sample", "samples", "schedule",
        "present", "name", "file", "file_name", "image", "title", "text", "caption", "description",
        "subject", "category", "score", "scale", "alpha", "token", "style", "feed", "with", "index",
        "group", "label", "labels", "source", "url", "license", "lords", "my_steps", "my_prompt",
        "my_base_model", "my_seed", "Unnamed: 0", "model_card", "height_cm", "weight_kg", "temp",
        "region", "mask", "emphasis", "syntax",
    ],
)  # fmt: skip
def test_a_column_of_the_author_s_own_is_carried(check: Check, column: str):
    checked = check(row(**{column: "x"}))
    assert not checked.problems
    assert checked.carried == (column,)
    assert checked.rows[0].carried_json == f'{{"{column}":"x"}}'


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ("steps", "write it in the column 'sampler', as 'num_steps'"),
        ("num_steps", "write it in the column 'sampler', as 'num_steps'"),
        ("num_inference_steps", "write it in the column 'sampler', as 'num_steps'"),
        ("cfg", "write it in the column 'sampler', as 'guidance_scale'"),
        ("Guidance Scale", "write it in the column 'sampler', as 'guidance_scale'"),
        ("sampler_name", "write it in the column 'sampler', as 'scheduler'"),
        ("truncation", "write it in the column 'sampler', as 'long_prompts'"),
        ("prompt_parser", "write it in the column 'sampler', as 'prompt_syntax'"),
        ("weight", "write it in the column 'loras', as 'weight'"),
        ("lora_weights", "write it in the column 'loras', as 'weight'"),
        ("strength", "write it in the column 'loras', as 'weight'"),
        ("trigger_word", "write it in the column 'loras', as 'trigger'"),
        ("negative", "did you mean 'negative_prompt'?"),
        ("n_prompt", "did you mean 'negative_prompt'?"),
        ("Width", "did you mean 'width'?"),
        ("Height", "did you mean 'height'?"),
        ("w", "did you mean 'width'?"),
        ("id", "did you mean 'row_id'?"),
        ("checkpoint", "did you mean 'base_model'?"),
        ("heiight", "did you mean 'height'?"),
    ],
)
def test_a_column_that_would_only_seem_to_be_read_is_a_problem_of_the_file(
    check: Check, column: str, part: str
):
    (problem,) = check(row(**{column: 128}), row(seed=2, **{column: 64})).problems
    assert (problem.place, problem.line, problem.field) == ("m.jsonl", None, column)
    assert part in problem.problem
    own = column.replace(" ", "_")
    assert problem.problem.endswith(
        f"(for one of your own choose another name, such as 'my_{own}')"
    )


@pytest.mark.parametrize(
    ("value", "is_pixels"),
    [(512, True), ("512x768", True), ("512 \u00d7 768", True), ([512, 768], True), ("L", False)],
)
def test_a_size_is_one_of_pixels_or_the_author_s_own(check: Check, value: Any, is_pixels: bool):
    problems = check(row(size=value)).problems
    assert [problem.field for problem in problems] == (["size"] if is_pixels else [])
    assert all("did you mean 'width' or 'height'?" in problem.problem for problem in problems)


def test_the_right_column_makes_one_that_is_like_it_the_author_s_own(check: Check):
    given = row(row_id="a", id=7, negative_prompt="blur", negative="x", base="y", seeds=3)
    assert check(given).carried == ("id", "negative", "base", "seeds")


def test_each_file_of_a_manifest_is_told_its_own(tmp_path: Path):
    raw = [
        RawRow(place=place, line=line, values=row(seed=line, Width=128))
        for place in ("a.csv", "b.csv")
        for line in (2, 3)
    ]
    problems = check_rows(raw, rules(write_catalog(tmp_path))).problems
    assert [(each.place, each.field) for each in problems] == [
        ("a.csv", "Width"),
        ("b.csv", "Width"),
    ]


def test_other_mistakes_of_a_row_are_found_in_the_same_go(check: Check):
    bad = row(prompt=None, Prompt="a beach", Width=130, seed=-1)
    assert [(each.line, each.field) for each in check(bad).problems] == [
        (None, "Prompt"),
        (None, "Width"),
        (1, "seed"),
        (1, "width"),
    ]


def test_a_row_whose_columns_are_misnamed_is_none_to_be_made(check: Check):
    checked = check(row(Width=128), row())
    assert [each.seed for each in checked.rows] == [7]
    assert len(checked.rows) == 1


def test_a_missing_column_is_looked_for_among_the_others_once(check: Check):
    (problem,) = check(*[row(prompt=None, prompt_of_row="a cat, a dog")] * 3).problems
    assert (problem.field, problem.line) == ("prompt_of_row", None)
    problems = check(row(), row(seed=None, shed=3)).problems
    assert [(each.line, each.field) for each in problems] == [(2, "seed")]


def test_a_misspelt_column_is_found_after_rows_of_many_shapes(check: Check):
    """Eleven columns that a row may have or not make two thousand shapes, and eleven names."""
    shapes = (
        {f"note_{bit}": "x" for bit in range(11) if number >> bit & 1} for number in range(2000)
    )
    rows = [row(seed=seed, **shape) for seed, shape in enumerate(shapes)]
    rows[1399]["negative"] = "blur"
    checked = check(*rows)
    assert [(each.field, each.line) for each in checked.problems] == [("negative", None)]
    assert set(checked.carried) == {f"note_{bit}" for bit in range(11)}


def test_the_value_decides_about_a_size_in_each_shape_of_rows(check: Check):
    (problem,) = check(row(size="L"), row(size=512, note="x")).problems
    assert problem.field == "size"


def test_more_names_than_are_looked_at_are_a_problem_of_the_file(check: Check):
    def rows(prefix: str) -> list[dict[str, Any]]:
        names = [f"{prefix}{number}" for number in range(MAX_NAMES + 1)]
        return [row(seed=n, **dict.fromkeys(names[n::3], 1)) for n in range(3)]

    (problem,) = check(*rows("c")).problems
    assert (problem.place, problem.line, problem.field) == ("m.jsonl", None, "(file)")
    assert problem.problem.startswith(f"has more than {MAX_NAMES:,} column names that are not read")
    assert not check(*rows("my_")).problems


def test_columns_of_rows_that_a_catalog_made_are_not_looked_at_again(check: Check):
    checked = check(row(weight="3 kg", steps="many"), names_are_checked=True)
    assert not checked.problems
    assert checked.carried == ("weight", "steps")


@pytest.mark.parametrize(
    "catalog",
    [
        {"LoRAs": [{"name": "cat", "uri": "cat.safetensors", "subject": "cat"}]},
        {"adapters": [{"name": "cat", "uri": "cat.safetensors", "subject": "cat"}]},
        {"loras": [{"name": "cat", "file": "cat.safetensors", "subject": "cat"}]},
        {"loras": [{"name": "cat", "uri": ["cat.safetensors"], "subject": "cat"}]},
        {"loras": [{"Name": "cat", "uri": "cat.safetensors", "subject": "cat"}]},
        {"loras": [{"name": "cat", "subject": "cat"}]},
        {"loras": {"cat": "cat.safetensors"}},
        [{"name": "cat", "uri": "cat.safetensors"}],
    ],
)
def test_one_mistake_in_a_catalog_is_one_problem_and_none_of_each_row(
    tmp_path: Path, catalog: object
):
    path = write_catalog(tmp_path)
    path.write_text(yaml.safe_dump(catalog))
    held_against = rules(path)
    raw = [
        RawRow(place="m", line=n, values=row(seed=n, prompt="a cat", loras=["cat"]))
        for n in range(9)
    ]
    assert isinstance(held_against.catalog, type(read_lora_catalog(str(path))))
    checked = check_rows(raw, held_against)
    assert len(held_against.catalog.problems) == 1
    assert not checked.problems


def test_a_name_that_a_catalog_with_another_mistake_lacks_is_still_told(tmp_path: Path):
    path = write_catalog(tmp_path)
    path.write_text("loras:\n- {name: dog}\n- {name: cat, uri: cat.safetensors, subject: cat}\n")
    raw = [RawRow(place="m", line=1, values=row(loras=["cta", "dog"]))]
    (problem,) = check_rows(raw, rules(path)).problems
    assert "no LoRA 'cta' in the catalog; did you mean 'cat'?" in problem.problem


def test_a_name_used_twice_comes_with_the_first_and_its_file(tmp_path: Path):
    path = tmp_path / "loras.yaml"
    path.write_text(
        "loras:\n- {name: cat, uri: a.safetensors}\n- {name: cat, uri: b.safetensors}\n"
    )
    (problem,) = read_lora_catalog(str(path)).problems
    assert problem.line == 3
    assert f"got 'cat', first in line 2, {tmp_path / 'a.safetensors'}" in problem.problem
