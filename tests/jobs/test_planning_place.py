"""A check that takes long says how far it is."""

from pathlib import Path

import pytest
from input_kit import write_catalog, write_jsonl

from clora_core.recipe.config import SamplerConfig
from jobs.job import planning_place
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.places.allowed_roots import EVERYWHERE
from manifests.rows.rules import RowModel, RowRules


@pytest.mark.parametrize("every_s", [0.0, 3600.0])
def test_a_long_check_says_how_many_rows_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float
):
    model = RowModel(
        digest="d", side_px=64, lora_fit=LoraFit(model_width=96), sampler=SamplerConfig()
    )
    rules = RowRules(
        catalog=read_lora_catalog(str(write_catalog(tmp_path))),
        lora_files=LoraFiles(),
        base_models={"": model},
        method="clora",
        dtype="float32",
    )
    rows = [{"prompt": "a cat", "loras": "cat", "seed": seed} for seed in range(5000)]
    manifest = write_jsonl(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(planning_place, "SAY_EVERY_S", every_s)
    notes: list[str] = []
    check = planning_place.check_here(notes.append)
    found = check(str(manifest), rules, allowed=EVERYWHERE, place=None)
    assert len(found.rows) == 5000
    assert all(text.endswith(" rows of the manifest are checked so far") for text in notes)
    assert notes[-1:] == ["5,000 rows of the manifest are checked so far"] * (every_s == 0)
