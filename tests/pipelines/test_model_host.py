"""The engine holds one base model at a time and makes what an engine of that model alone makes."""

import pickle
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_kit import ON_ONE_CPU, FakeModelHost, planned_table, row
from oracles.fixtures import tiny_loras, tiny_sd_dir  # noqa: F401
from oracles.tiny_loras import TinyLoras
from oracles.tiny_models import build_tiny_sd
from oracles.tiny_rows import two_concept_row

from clora_core.diffusion import model as diffusion_model
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage
from manifests.loras.file import inspect_lora_file
from pipelines.session.resources import Resources
from pipelines.stages.generate import generate_unit
from pipelines.stages.model_host import ModelHost, ModelHostSource
from pipelines.units.message import UnitFacts, UnitMessage


@pytest.fixture(scope="module")
def folders(tiny_sd_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:  # noqa: F811
    """Two base models of one shape and other weights, by what stands for their digests."""
    other = build_tiny_sd(tmp_path_factory.mktemp("other"), seed=5)
    return {"one": str(tiny_sd_dir), "other": str(other)}


@pytest.fixture(scope="module")
def rows(tiny_loras: TinyLoras) -> list[Row]:  # noqa: F811
    first = two_concept_row(tiny_loras)
    loras = tuple(replace(lora, digest=inspect_lora_file(lora.uri).digest) for lora in first.loras)
    few = {"num_steps": 3, "guide_until_step": 2, "refine_steps": (0,), "num_refine_updates": 1}
    sampler = first.sampler.model_copy(update=few)
    return [replace(first, loras=loras, sampler=sampler, seed=seed) for seed in (1, 2)]


def engine(folders: dict[str, str]) -> ModelHost:
    return ModelHostSource(base_model_dirs=folders, resources=Resources())(ON_ONE_CPU)


def made(by: ModelHost, model: str, rows: list[Row]) -> list[np.ndarray]:
    by.hold(model)
    results = by.compose(rows)
    assert all(isinstance(result, ComposedImage) for result in results), results
    return [result.image for result in results if isinstance(result, ComposedImage)]


def test_an_engine_that_changes_models_makes_what_engines_of_one_model_make(
    folders: dict[str, str], rows: list[Row]
):
    alone = {name: made(engine({name: folder}), name, rows) for name, folder in folders.items()}
    assert not np.array_equal(alone["one"], alone["other"])
    both = engine(folders)
    for name in ("one", "other", "one"):
        np.testing.assert_array_equal(made(both, name, rows), alone[name])


def test_a_model_is_loaded_when_it_is_needed_and_the_former_and_its_loras_are_gone_by_then(
    folders: dict[str, str], rows: list[Row], monkeypatch: pytest.MonkeyPatch
):
    load, seen = diffusion_model.load_base_model, []

    def watched(*arguments, **options):
        assert all(former() is None for former in seen)
        assert both.use().lora_cache_bytes == 0
        model = load(*arguments, **options)
        seen.append(weakref.ref(model))
        return model

    monkeypatch.setattr(diffusion_model, "load_base_model", watched)
    both = engine(folders)
    assert both.use().model_loads == 0
    for name in ("one", "one", "other"):
        made(both, name, rows)
    use = both.use()
    assert use.model_loads == len(seen) == 2
    assert use.model_load_seconds > 0
    # Both LoRAs once for each model, and held for the second call.
    assert (use.lora_misses, use.lora_hits) == (4, 6 * 2 - 4)
    assert use.lora_evictions == 0


def test_a_model_that_cannot_be_loaded_is_raised_and_not_blamed_on_rows(tmp_path: Path):
    broken = engine({row().base_model_digest: str(tmp_path)})
    unit = UnitMessage(unit_id="u", rows=planned_table([row()]), facts=UnitFacts())
    with pytest.raises(ValueError, match="is no base model"):
        generate_unit(unit, broken)


def test_a_unit_says_how_many_models_were_loaded_for_it():
    engine = FakeModelHost()
    loads = [
        generate_unit(
            UnitMessage(unit_id="u", rows=planned_table([one]), facts=UnitFacts()), engine
        ).facts.model_loads
        for one in (row(0), row(1), row(2, base_model_digest="m2"))
    ]
    assert loads == [1, 0, 1]


def test_a_source_travels_as_a_small_value(folders: dict[str, str]):
    source = ModelHostSource(base_model_dirs=folders, resources=Resources(max_lanes=4))
    sent = pickle.dumps(source)
    assert pickle.loads(sent) == source  # noqa: S301
    assert len(sent) < 1000
