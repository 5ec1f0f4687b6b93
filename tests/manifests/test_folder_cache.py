"""Model folders in a store come here whole, once, and never land outside the cache."""

from pathlib import Path

import obstore
import pytest
from input_kit import write_base_model
from s3_kit import BUCKET

from manifests.places import file_cache
from manifests.places.folder_cache import _inner_name, local_folder
from manifests.places.locations import LocationError
from manifests.weights.base_model import inspect_base_model
from manifests.weights.digests import folder_digest
from pipelines.storage.client import client


@pytest.fixture
def model(s3_uri: str, tmp_path: Path) -> tuple[str, Path]:
    """A base model in a store, and the same on disk."""
    folder = write_base_model(tmp_path / "base")
    (folder / "README.md").write_text("not part of the model")
    prefix = s3_uri.removeprefix(f"s3://{BUCKET}/")
    for file in folder.rglob("*"):
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            obstore.put(client(f"s3://{BUCKET}"), f"{prefix}/base/{name}", file.read_bytes())
    return f"{s3_uri}/base", folder


def test_a_model_in_a_store_is_the_one_on_disk(model: tuple[str, Path], tmp_path: Path):
    uri, folder = model
    copy = local_folder(uri, cache=tmp_path / "cache")
    assert folder_digest(copy) == folder_digest(folder)
    assert inspect_base_model(copy).default_size_px == 128
    assert not (copy / "README.md").exists()


def test_it_is_fetched_once_and_anew_when_it_changes(
    model: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uri, _ = model
    fetched: list[str] = []
    real = file_cache._fetch
    monkeypatch.setattr(
        file_cache, "_fetch", lambda name, *rest: (fetched.append(name), real(name, *rest))[1]
    )
    first = local_folder(uri, cache=tmp_path / "cache")
    assert local_folder(uri, cache=tmp_path / "cache") == first
    assert len(fetched) == len(set(fetched)) == 4
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    obstore.put(client(f"s3://{BUCKET}"), f"{prefix}/model_index.json", b'{"_class_name": "X"}')
    changed = local_folder(uri, cache=tmp_path / "cache")
    assert changed != first
    assert len(fetched) == 5
    assert folder_digest(changed) != folder_digest(first)


def test_a_local_folder_is_itself(tmp_path: Path):
    assert local_folder(str(tmp_path)) == tmp_path


def test_a_folder_that_is_not_there_is_named(s3_uri: str, tmp_path: Path):
    with pytest.raises(LocationError, match=r"/base does not exist; check the path"):
        local_folder(f"{s3_uri}/base", cache=tmp_path)


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/etc/x.json", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str):
    with pytest.raises(LocationError, match="leads out of s3://b/model; rename it"):
        _inner_name(f"s3://b/model/{name}", "s3://b/model")


def test_a_name_below_the_folder_is_kept():
    assert _inner_name("s3://b/model/unet/config.json", "s3://b/model") == "unet/config.json"
