import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from engine_kit import NOW, commit, rows
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.export import export
from pipelines.committed_image import image_name
from pipelines.damages import Damages
from pipelines.run_record import RunRecord, new_run_id, write_run_record
from pipelines.storage import LocalStorage
from pipelines.webdataset import webdataset_shards, write_webdataset

SEES = Damages(note=print)


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "out")
    made = rows(7)
    commit(storage, "u1", made[:4])
    commit(storage, "u2", made[4:])
    return storage


def test_datasets_reads_the_shards_as_images_with_captions_and_rows(
    output: LocalStorage, tmp_path: Path
):
    datasets = pytest.importorskip("datasets")
    target = LocalStorage(tmp_path / "shards")
    num_images, num_shards = write_webdataset(output, target, shard_bytes=4_000, damages=SEES)
    assert (num_images, num_shards) == (7, len(target.list(".", ".tar")))
    loaded = datasets.load_dataset(
        "webdataset",
        data_files={"train": f"{target.uri}/*.tar"},
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == 7
    assert len(target.list(".", ".tar")) > 1
    for sample in loaded:
        key = sample["__key__"]
        assert sample["json"]["key"] == key
        assert sample["txt"] == sample["json"]["prompt"] == "a cat and a dog"
        assert sample["json"]["sampler"]["num_steps"] == 50
        mine = Image.open(io.BytesIO(output.read(image_name(key))))
        assert np.array_equal(np.asarray(sample["png"]), np.asarray(mine))


def test_the_same_rows_give_the_same_bytes(output: LocalStorage, tmp_path: Path):
    one, other = LocalStorage(tmp_path / "one"), LocalStorage(tmp_path / "other")
    write_webdataset(output, one, damages=SEES)
    write_webdataset(output, other, damages=SEES)
    assert one.read("images-000000.tar") == other.read("images-000000.tar")


@given(st.lists(st.integers(0, 3000), max_size=12), st.integers(1, 8000))
def test_every_sample_is_in_one_shard_whole_and_in_order(sizes: list[int], shard_bytes: int):
    samples = [(f"{n:03d}", {"png": b"x" * size, "txt": b"t"}) for n, size in enumerate(sizes)]
    found: list[tuple[str, int]] = []
    for content, num_samples in webdataset_shards(samples, shard_bytes=shard_bytes):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            entries = [(entry.name, entry.size) for entry in tar]
        assert len(entries) == 2 * num_samples > 0
        found += entries
    expected = [
        entry
        for n, size in enumerate(sizes)
        for entry in ((f"{n:03d}.png", size), (f"{n:03d}.txt", 1))
    ]
    assert found == expected


def test_export_says_what_it_wrote_and_refuses_a_folder_without_runs(
    output: LocalStorage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = str(tmp_path / "shards")
    assert export(output.uri, webdataset=target) == 2
    assert "no run has written here" in capsys.readouterr().err
    record = RunRecord(
        run_id=new_run_id(NOW), started_at=NOW.isoformat(), num_rows=7, job={}, digests={}
    )
    write_run_record(output, record)
    assert export(output.uri, webdataset=target) == 0
    assert "7 images in 1 shard(s)" in capsys.readouterr().out
    with tarfile.open(f"{target}/images-000000.tar") as tar:
        member = tar.extractfile(tar.getnames()[0])
        assert member is not None
        assert "key" in json.loads(member.read())
