"""A manifest that Ray Data checks has the rows and problems that one process finds."""

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from input_kit import write_catalog, write_jsonl

from clora_core.recipe.config import SamplerConfig
from manifests.loras.catalog import LoraEntry, read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import CheckedManifest, check_manifest
from manifests.rows.rules import RowModel, RowRules
from manifests.tables import splits

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def rules(tmp_path: Path) -> RowRules:
    model = RowModel(
        digest="d", side_px=64, lora_fit=LoraFit(model_width=96), sampler=SamplerConfig()
    )
    return RowRules(
        catalog=read_lora_catalog(str(write_catalog(tmp_path))),
        lora_files=LoraFiles(),
        base_models={"": model},
        method="clora",
        dtype="float32",
    )


def good_rows(chance: random.Random, num_rows: int) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"row-{index}",
            "prompt": f"a cat and a dog in place {chance.randrange(20)}",
            "loras": chance.choice([["cat", "dog"], ["dog:0.5", "cat", "ink"]]),
            "seed": chance.randrange(30),
            "shelf": chance.choice(["A", "B"]),
        }
        for index in range(num_rows)
    ]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.parquet") -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=20)
    return folder / name


def both(
    uri: Path, rules: RowRules, monkeypatch: pytest.MonkeyPatch
) -> tuple[CheckedManifest, CheckedManifest]:
    from pipelines.distributed import check

    monkeypatch.setattr(splits, "SPLIT_ROWS", 40)
    here = check_manifest(str(uri), rules)
    on_ray = check.check_on_ray(str(uri), rules)
    assert on_ray.problems == here.problems
    assert on_ray.carried == here.carried
    assert on_ray.left_out == here.left_out
    if not here.problems:
        assert list(on_ray.rows) == list(here.rows)
        assert list(on_ray.rows[3:90]) == list(here.rows)[3:90]
    return on_ray, here


def test_rows_of_several_files_and_row_groups_are_those_of_one_process(
    tmp_path: Path, rules: RowRules, monkeypatch: pytest.MonkeyPatch
):
    chance = random.Random(0)
    folder = tmp_path / "rows"
    rows = good_rows(chance, 230)
    write(folder, rows[:150], "a.parquet")
    write_jsonl(folder / "b.jsonl", rows[150:200])
    write(folder, rows[200:], "c.parquet")
    found, _ = both(folder, rules, monkeypatch)
    assert len(found.rows) == 230


def test_problems_of_all_parts_are_found_in_the_manifests_order(
    tmp_path: Path, rules: RowRules, monkeypatch: pytest.MonkeyPatch
):
    rows = good_rows(random.Random(1), 200)
    rows[3]["prompt"] = "a cat and a tree"
    rows[77]["seed"] = -1
    rows[150]["row_id"] = rows[10]["row_id"]
    rows[199]["loras"] = ["nobody"]
    found, _ = both(write(tmp_path / "rows", rows), rules, monkeypatch)
    assert [problem.line for problem in found.problems] == [4, 78, 151, 200]


def test_a_misspelt_column_is_one_problem_of_its_file(
    tmp_path: Path, rules: RowRules, monkeypatch: pytest.MonkeyPatch
):
    rows = [row | {"Negative Prompt": "blur"} for row in good_rows(random.Random(2), 130)]
    found, _ = both(write(tmp_path / "rows", rows), rules, monkeypatch)
    assert [problem.field for problem in found.problems] == ["Negative Prompt"]


def test_a_lora_that_workers_saw_differently_is_looked_at_by_one_process(
    tmp_path: Path, rules: RowRules, monkeypatch: pytest.MonkeyPatch
):
    class Changing(LoraFiles):  # sent to workers by value, because it is no module's
        """Finds another file in each process, as if it changed in between."""

        def state(self, entry: LoraEntry, fit: LoraFit = rules.base_models[""].lora_fit) -> Any:
            found = replace(super().state(entry, fit), digest=f"of process {os.getpid()}")
            self._seen[entry] = found, None
            return found

    changing = replace(rules, lora_files=Changing())
    found, _ = both(
        write(tmp_path / "rows", good_rows(random.Random(4), 200)), changing, monkeypatch
    )
    assert {lora.digest for row in found.rows for lora in row.loras} == {
        f"of process {os.getpid()}"
    }
