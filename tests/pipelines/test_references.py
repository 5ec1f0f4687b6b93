import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from engine_kit import BASE_MODEL, SAMPLER, commit, lora, row

from clora_core.recipe.config import SamplerConfig
from pipelines.planning.plan_uses import concepts_of
from pipelines.planning.references import (
    CentroidSource,
    ReferenceSettings,
    read_centroids,
    reference_id,
    reference_rows,
    write_centroids,
)
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import rows_name

QUICK = SamplerConfig(num_steps=30)
SETTINGS = {BASE_MODEL: ReferenceSettings(num_references=3, sampler=SAMPLER, side_px=8)}


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "references")


def test_every_concept_lora_is_rendered_alone_once_whatever_its_weight_in_rows():
    heavy = lora("cat", weight=0.4)
    style = lora("ink", kind="style", subject=None)
    broken = lora("fox", problem="/loras/fox.safetensors is empty")
    manifest = [row(0), row(1, loras=(heavy, style)), row(2, loras=(broken,))]
    made = list(reference_rows(concepts_of(manifest), SETTINGS))
    assert [(one.prompt, one.seed) for one in made] == [
        ("a cat", 0), ("a cat", 1), ("a cat", 2), ("a dog", 0), ("a dog", 1), ("a dog", 2),
    ]  # fmt: skip
    assert {one.method for one in made} == {"single"}
    assert {one.loras[0].weight for one in made} == {1.0}
    assert len({one.key for one in made}) == len(made)


def test_a_lora_on_two_base_models_has_references_on_each_made_as_its_rows_are():
    small = ReferenceSettings(num_references=1, sampler=QUICK, side_px=16)
    manifest = [row(0, loras=(lora("cat"),)), row(1, loras=(lora("cat"),), base_model_digest="m2")]
    made = list(reference_rows(concepts_of(manifest), SETTINGS | {"m2": small}))
    assert [(one.base_model_digest, one.width, one.sampler) for one in made] == [
        *[(BASE_MODEL, 8, SAMPLER)] * 3,
        ("m2", 16, QUICK),
    ]
    assert made[0].key != made[-1].key


def test_references_have_the_keys_of_what_they_show_so_runs_share_them():
    renamed = row(
        0, loras=(lora("kitty", digest=lora("cat").digest, subject="cat", trigger="<cat>"),)
    )
    one = [
        made.key for made in reference_rows(concepts_of([row(0, loras=(lora("cat"),))]), SETTINGS)
    ]
    assert one == [made.key for made in reference_rows(concepts_of([renamed]), SETTINGS)]


def test_a_centroid_is_the_mean_of_the_features_that_are_committed(storage: LocalStorage):
    wanted = list(reference_rows(concepts_of([row(0)]), SETTINGS))
    commit(storage, "u1", wanted[:2])
    commit(storage, "u2", [wanted[3], row(99)])
    found = read_centroids(storage, wanted)
    assert set(found) == {reference_id(BASE_MODEL, lora(name)) for name in ("cat", "dog")}
    features = pq.read_table(io.BytesIO(storage.read(rows_name("u1"))))["dino_features"]
    by_hand = np.mean(features.to_pylist(), axis=0)
    np.testing.assert_allclose(found[reference_id(BASE_MODEL, lora("cat"))], by_hand, atol=1e-6)


def test_a_reference_committed_in_two_units_counts_once(storage: LocalStorage):
    wanted = list(reference_rows(concepts_of([row(0, loras=(lora("cat"),))]), SETTINGS))
    commit(storage, "u1", wanted[:2])
    (alone,) = read_centroids(storage, wanted).values()
    commit(storage, "u2", wanted[1:2])
    (both,) = read_centroids(storage, wanted).values()
    np.testing.assert_array_equal(alone, both)


def test_actors_find_the_centroids_by_the_name_of_a_file(storage: LocalStorage):
    means = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([0.5, 0.25], np.float32)}
    source = write_centroids(storage, "plans/run-centroids.parquet", means)
    read = source()
    assert read.keys() == means.keys()
    for name, mean in means.items():
        np.testing.assert_array_equal(read[name], mean)
    assert CentroidSource()() == {}
