"""Regions as rows write them: what is accepted, what is refused and how, what the sampler gets."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from input_kit import row, write_catalog

from clora_core.recipe.config import SamplerConfig
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import CheckedManifest, check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import RawRow


@pytest.fixture
def check(tmp_path: Path):
    catalog = read_lora_catalog(str(write_catalog(tmp_path)))
    rules = RowRules(
        catalog=catalog,
        lora_files=LoraFiles(),
        base_models={
            "": RowModel(
                digest="base",
                side_px=128,
                lora_fit=LoraFit(model_width=96),
                sampler=SamplerConfig(),
            )
        },
        method="clora",
        dtype="float32",
    )

    def run(region: Any, *, lora: str = "cat", **changes: Any) -> CheckedManifest:
        loras = changes.pop("loras", [{"lora": lora, "region": region}])
        values = row(prompt="a cat", loras=loras, **changes)
        place = str(tmp_path / "rows.jsonl")
        return check_rows([RawRow(place=place, line=1, values=values)], rules)

    return run


def told(checked: CheckedManifest) -> tuple[str, str]:
    (problem,) = checked.problems
    assert not checked.rows
    return problem.field, problem.problem


def region_of(checked: CheckedManifest) -> dict[str, Any]:
    assert not checked.problems, [str(problem) for problem in checked.problems]
    return json.loads(checked.rows[0].loras[0].region.to_json())


@pytest.mark.parametrize(
    "region",
    [
        [0, 0.25, 0.5, 1],
        (0.0, 0.25, 0.5, 1.0),
        {"box": [0, 0.25, 0.5, 1]},
        {"box": [0, 0.25, 0.5, 1], "mask": None, "mode": "restrict"},
    ],
)
def test_every_way_to_write_a_box_says_the_same(check, region):
    checked = check(region)
    assert region_of(checked) == {"box": [0, 0.25, 0.5, 1], "mode": "restrict"}
    assert checked.rows[0].key == check([0, 0.25, 0.5, 1]).rows[0].key


def test_a_csv_row_writes_regions_in_its_json(check):
    text = '[{"lora": "cat", "region": {"box": [0, 0, 1, 0.5], "mode": "replace"}}]'
    assert region_of(check(None, loras=text)) == {"box": [0, 0, 1, 0.5], "mode": "replace"}


def test_a_region_is_part_of_the_key(check):
    keys = {
        check(region).rows[0].key
        for region in (None, [0, 0, 1, 0.5], {"box": [0, 0, 1, 0.5], "mode": "replace"})
    }
    assert len(keys) == 3


def test_a_mask_lies_beside_the_manifest_and_is_known_by_its_bytes(check, tmp_path: Path):
    (tmp_path / "left.png").write_bytes(b"one")
    first = check({"mask": "left.png"})
    digest = hashlib.sha256(b"one").hexdigest()
    uri = str(tmp_path / "left.png")
    assert region_of(first) == {"mask": {"sha256": digest, "uri": uri}, "mode": "restrict"}
    (tmp_path / "copy.png").write_bytes(b"one")
    assert check({"mask": "copy.png"}).rows[0].key == first.rows[0].key
    (tmp_path / "left.png").write_bytes(b"two")
    assert check({"mask": "left.png"}).rows[0].key != first.rows[0].key


@pytest.mark.parametrize(
    ("region", "field", "sentence"),
    [
        ([0.5, 0, 0.5, 1], ".box", "0 <= left < right <= 1"),
        ([0, 1, 1, 0], ".box", "0 <= top < bottom <= 1"),
        ([0, 0, 256, 256], ".box", "in shares of the image (not pixels)"),
        ([0, 0, float("nan"), 1], ".box", "0 <= left < right <= 1"),
        ([0, 0, 1], ".box.3", "is required and not given"),
        ([0, 0, 1, 1, 1], ".box", "got"),
        ([0, 0, 1, "1"], ".box.3", "valid number, got '1'"),
        ({"box": [0, 0, 1, 1], "mask": "a.png"}, "", "should have one of box and mask"),
        ({}, "", "should have one of box and mask"),
        ({"bbox": [0, 0, 1, 1]}, ".bbox", "did you mean 'box'?"),
        ({"box": [0, 0, 1, 1], "mode": "keep"}, ".mode", "'restrict' or 'replace', got 'keep'"),
        ("left", "", "should be a box [left, top, right, bottom] or a mapping"),
        (7, "", "got 7"),
    ],
)
def test_a_wrong_region_is_told_with_field_value_and_rule(check, region, field, sentence):
    found_field, problem = told(check(region))
    assert found_field == f"loras[0].region{field}"
    assert sentence in problem


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("gone.png", "does not exist"),
        (".", "is a folder; name a file"),
        ("nope://b/m.png", "cannot be read"),
    ],
)
def test_a_mask_that_cannot_be_read_is_told_with_its_lora_and_place(check, mask, reason):
    field, problem = told(check({"mask": mask}))
    assert field == "loras"
    assert "the region of LoRA 'cat': " in problem
    assert reason in problem


def test_a_method_without_masks_refuses_a_region_and_base_does_not(check):
    field, problem = told(check([0, 0, 1, 1], method="composite"))
    assert field == "method"
    assert "'composite' has no masks" in problem
    assert "use one of 'base', 'merge', 'clora', 'clora-no-update', 'clora-gated'" in problem
    for method in ("base", "merge", "freefuse"):
        assert check([0, 0, 1, 1], method=method).rows


def test_a_style_has_no_region(check):
    loras = ["cat", {"lora": "ink", "region": [0, 0, 1, 0.5]}]
    assert "'ink' is a style, which acts everywhere" in told(check(None, loras=loras))[1]


def test_the_sampler_takes_what_a_region_resolves_to(check, tmp_path: Path):
    from PIL import Image

    from clora_core.sampling.regions import region_mask

    Image.linear_gradient("L").save(tmp_path / "below.png")
    for region, inside in (
        ({"box": [0, 0.5, 1, 1]}, [False, True]),
        ({"mask": "below.png", "mode": "replace"}, [False, True]),
    ):
        taken = check(region).rows[0].loras[0].region
        assert taken.mode == region.get("mode", "restrict")
        assert region_mask(taken, 2, 1)[:, 0].tolist() == inside
