"""A LoRA comes to a machine with the settings that say its strength, by file or folder, or not."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from engine_kit import composed_rows, lora, row
from input_kit import adapter_config, safetensors_bytes, write_lora
from pyarrow import fs

from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from manifests.loras.about.catalog_entry import catalog_entry, catalog_name
from manifests.loras.about.report import lora_report
from manifests.loras.catalog import LoraEntry, read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.local_lora import local_lora
from manifests.places import locations
from manifests.places.allowed_roots import AllowedRoots
from manifests.places.locations import LocationError
from pipelines.stages.lora_identity import LoraIdentity

LAYER = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store at s3://bucket that is really a folder."""
    folder = tmp_path / "store"
    (folder / "bucket").mkdir(parents=True)
    store = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    monkeypatch.setattr(locations, "_remote", lambda _root: store)
    monkeypatch.setenv("CLORA_CACHE", str(tmp_path / "cache"))
    return folder / "bucket"


def write_adapter(folder: Path, *, alpha: float = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{LAYER}.lora_A.weight": np.ones((4, 96), "f4"),
        f"{LAYER}.lora_B.weight": np.ones((8, 4), "f4"),
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    (folder / "adapter_config.json").write_text(adapter_config(4, alpha))
    return folder


def entry(uri: str | Path, **values: str) -> LoraEntry:
    return LoraEntry(name="cat", uri=str(uri), subject="cat", **values)  # pyright: ignore[reportArgumentType]


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path):
    folder = write_adapter(tmp_path / "cat")
    assert local_lora(str(folder)) == folder / "adapter_model.safetensors"
    by_folder, by_file = (
        LoraFiles().state(entry(uri)) for uri in (folder, folder / "adapter_model.safetensors")
    )
    assert by_folder == by_file
    assert by_folder.problem is None


def test_in_a_store_file_and_settings_come_together_and_are_the_lora_on_disk(bucket: Path):
    folder = write_adapter(bucket / "loras/cat")
    expected = LoraFiles().state(entry(folder))
    for uri in ("s3://bucket/loras/cat", "s3://bucket/loras/cat/adapter_model.safetensors"):
        copy = local_lora(uri)
        assert copy.with_name("adapter_config.json").read_text() == adapter_config(4, 8)
        assert LoraFiles().state(entry(uri)) == expected
    sha256 = str(expected.info and expected.info.file_sha256)
    pinned = entry("s3://bucket/loras/cat", sha256=sha256)
    first = LoraFiles().state(pinned)
    write_adapter(folder, alpha=16)
    changed = LoraFiles().state(pinned)
    assert first == expected
    assert changed.problem is None
    assert changed.digest != expected.digest
    assert copy.with_name("adapter_config.json").read_text() == adapter_config(4, 8)


def test_a_problem_in_a_store_is_told_by_the_names_there(bucket: Path):
    folder = write_adapter(bucket / "cat", alpha=8)
    (folder / "adapter_config.json").write_text(adapter_config(3, 8))
    problem = str(LoraFiles().state(entry("s3://bucket/cat")).problem)
    assert problem.startswith("s3://bucket/cat/adapter_config.json gives ")
    assert "and s3://bucket/cat/adapter_model.safetensors has it with rank 4" in problem
    (folder / "adapter_config.json").unlink()
    problem = str(LoraFiles().state(entry("s3://bucket/cat")).problem)
    assert problem.startswith("s3://bucket/cat/adapter_model.safetensors has peft's own names")


@pytest.mark.parametrize("place", ["store", "disk"])
def test_a_folder_without_the_file_is_told(bucket: Path, place: str):
    (bucket / "cat").mkdir()
    (bucket / "cat/adapter_model.bin").write_bytes(b"x")
    uri = "s3://bucket/cat" if place == "store" else str(bucket / "cat")
    with pytest.raises(LocationError, match=r"is a folder without adapter_model.safetensors; name"):
        local_lora(uri)
    assert "is a folder without" in str(LoraFiles().state(entry(uri)).problem)


def test_an_actor_samples_with_file_and_settings_on_its_own_machine(bucket: Path):
    write_adapter(bucket / "cat")
    digest = LoraFiles().state(entry("s3://bucket/cat")).digest
    seen: list[str | None] = []
    planned = replace(lora("cat", uri="s3://bucket/cat"), digest=digest)

    def compose(rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        seen.extend(LoraIdentity().problem(one) for row_ in rows for one in row_.loras)
        raise MemoryError

    composed_rows([row(0, loras=(planned,))], compose)
    assert seen[0] is None
    write_adapter(bucket / "cat", alpha=16)
    composed_rows([row(0, loras=(planned,))], compose)
    assert "was replaced since the run was planned" in str(seen[-1])


def test_settings_that_change_under_a_held_digest_are_noticed(tmp_path: Path):
    folder = write_adapter(tmp_path / "cat")
    digest = LoraFiles().state(entry(folder)).digest
    use = replace(lora("cat", uri=str(local_lora(str(folder)))), digest=digest)
    identity = LoraIdentity()
    assert identity.problem(use) is None
    write_adapter(folder, alpha=16)
    os.utime(folder / "adapter_config.json", ns=(1, 1))
    assert "was replaced since the run was planned" in str(identity.problem(use))
    (folder / "adapter_config.json").unlink()
    assert "cannot be used any more" in str(identity.problem(use))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_service_does_not_follow_a_link_out_of_a_folder_of_peft(tmp_path, name, by_file):
    roots, outside = tmp_path / "in", tmp_path / "out"
    folder = write_adapter(roots / "cat")
    outside.mkdir()
    (folder / name).rename(outside / name)
    (folder / name).symlink_to(outside / name)
    uri = "cat/adapter_model.safetensors" if by_file else "cat"
    catalog = roots / "loras.yaml"
    catalog.write_text(yaml.safe_dump({"loras": [{"name": "cat", "uri": uri, "kind": "style"}]}))
    (problem,) = read_lora_catalog(str(catalog), allowed=AllowedRoots((str(roots),))).problems
    assert "is outside the places that this service opens" in problem.problem
    assert len(read_lora_catalog(str(catalog))) == 1


def test_a_catalog_entry_is_named_for_peft_s_folder(tmp_path: Path):
    folder = write_adapter(tmp_path / "my-cat")
    for path in (folder, folder / "adapter_model.safetensors"):
        report = lora_report(path)
        assert catalog_name(report) == "my-cat"
        assert f'uri: "{path}"' in catalog_entry(report, name="my-cat")


def test_a_plain_file_is_its_own_copy_whatever_lies_beside_it(tmp_path: Path):
    path = write_lora(tmp_path / "cat.safetensors")
    before = LoraFiles().state(entry(path))
    (tmp_path / "adapter_config.json").write_text("{")
    assert local_lora(str(path)) == path
    assert LoraFiles().state(entry(path)) == before
