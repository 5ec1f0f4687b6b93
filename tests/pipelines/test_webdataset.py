import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from engine_kit import NOW, commit, rows
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.commands.export import export
from pipelines.ledger.run_record import RunRecord, new_run_id, write_run_record
from pipelines.outputs.shard_list import SHARD_LIST
from pipelines.outputs.webdataset import webdataset_shards, write_webdataset
from pipelines.storage.error import PlaceError
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_image import image_name
from pipelines.units.damages import Damages

SEES = Damages(note=print)
FEW = 20_000
"""Bytes of a shard that make few of them."""


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
    # The folder alone: what is in it beside the shards must not be taken for data.
    loaded = datasets.load_dataset(target.uri, split="train", cache_dir=str(tmp_path / "cache"))
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


def keys_in(folder: str) -> list[str]:
    """Return the key of every sample that a reader of ``*.tar`` gets, sorted."""
    found: list[str] = []
    for path in Path(folder).glob("*.tar"):
        with tarfile.open(path) as tar:
            found += [name.removesuffix(".png") for name in tar.getnames() if ".png" in name]
    return sorted(found)


def write(output: LocalStorage, target: Storage, shard_bytes: int) -> int:
    return write_webdataset(output, target, damages=SEES, shard_bytes=shard_bytes)[1]


def test_an_export_with_fewer_shards_leaves_none_of_the_earlier_ones(
    output: LocalStorage, tmp_path: Path
):
    target = LocalStorage(tmp_path / "shards")
    assert write(output, target, 1) == 7
    target.put("others.tar", b"of somebody else")
    assert write(output, target, FEW) < 7
    target.delete("others.tar")
    assert keys_in(target.uri) == sorted(row.key for row in rows(7))
    assert write(LocalStorage(tmp_path / "none"), target, FEW) == 0
    assert keys_in(target.uri) == []


def test_a_store_has_no_shards_left_over_either(output: LocalStorage, s3_uri: str):
    target = open_storage(f"{s3_uri}/shards")
    assert write(output, target, 1) == 7
    target.put("others.tar", b"of somebody else")
    num_shards = write(output, target, FEW)
    names = [f"images-{number:06d}.tar" for number in range(num_shards)]
    assert [name.rpartition("/")[2] for name in target.list("", ".tar")] == [*names, "others.tar"]
    assert json.loads(target.read(SHARD_LIST))["shards"] == names
    target.put("images-000099.tar", b"of somebody else")
    with pytest.raises(PlaceError, match=r"images-000099\.tar, which no export has listed"):
        write(output, target, FEW)


@pytest.mark.parametrize("name", ["images-000000.tar", "images-000042.tar", "images-1000000.tar"])
def test_a_shard_that_no_export_listed_is_neither_removed_nor_taken_for_its_own(
    output: LocalStorage, tmp_path: Path, name: str
):
    target = LocalStorage(tmp_path / "shards")
    target.put(name, b"of somebody else")
    with pytest.raises(PlaceError, match=f"{name}, which no export has listed"):
        write(output, target, FEW)
    assert [path.name for path in Path(target.uri).iterdir()] == [name]
    target.delete(name)
    write(output, target, 1)
    target.put(SHARD_LIST, target.read(SHARD_LIST)[:-9])
    with pytest.raises(PlaceError, match="is damaged"):
        write(output, target, FEW)
    assert len(keys_in(target.uri)) == 7


def test_what_was_removed_is_gone_for_good_before_the_list_denies_it(
    output: LocalStorage, tmp_path: Path
):
    calls: list[str] = []

    class Recorded(LocalStorage):
        def put_all(self, files: Mapping[str, bytes]) -> None:
            calls.extend(f"put {name}" for name in files)
            super().put_all(files)

        def delete(self, name: str) -> None:
            calls.append("delete")
            super().delete(name)

        def settle(self, folder: str) -> None:
            calls.append("settle")
            super().settle(folder)

    target = Recorded(tmp_path / "shards")
    write(output, target, 1)
    calls.clear()
    num_shards = write(output, target, FEW)
    assert calls[0] == f"put {SHARD_LIST}"
    assert calls[num_shards + 1 :] == ["delete"] * (7 - num_shards) + [
        "settle",
        f"put {SHARD_LIST}",
    ]


class KilledError(BaseException):
    pass


class Killed(LocalStorage):
    """Ends at the n-th change; what was done before it stays."""

    left = 0

    def put_all(self, files: Mapping[str, bytes]) -> None:
        self._count()
        super().put_all(files)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


@pytest.mark.parametrize("earlier", [None, 1, FEW])
def test_an_export_that_was_killed_anywhere_is_made_whole_by_the_next(
    output: LocalStorage,
    tmp_path: Path,
    earlier: int | None,
    monkeypatch: pytest.MonkeyPatch,
):
    """Whatever was killed, and with however many shards, nothing of it is left over or doubled."""
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    all_keys = sorted(row.key for row in rows(7))
    for shard_bytes in (1, FEW):
        for number in range(100):
            target = LocalStorage(tmp_path / f"{shard_bytes}-{number}")
            if earlier is not None:
                write(output, target, earlier)
            killed = Killed(Path(target.uri))
            killed.left = number
            try:
                write(output, killed, shard_bytes)
                break
            except KilledError:
                # Finished or not, the list names every shard that is there.
                listed = json.loads(target.read(SHARD_LIST)) if target.exists(SHARD_LIST) else {}
                found = {path.name for path in Path(target.uri).glob("*.tar")}
                assert found <= set(listed.get("shards", []))
                if listed.get("finished"):
                    assert keys_in(target.uri) == all_keys
                write(output, target, FEW)
                assert keys_in(target.uri) == all_keys
        assert keys_in(target.uri) == all_keys
        assert json.loads(target.read(SHARD_LIST))["finished"] is True
        assert 3 < number < 99


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
    (tmp_path / "shards/images-000009.tar").write_bytes(b"of somebody else")
    assert export(output.uri, webdataset=target) == 2
    assert "images-000009.tar, which no export has listed" in capsys.readouterr().err
