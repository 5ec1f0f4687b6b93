import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.storage import LocalStorage, StorageError, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def test_of_eight_writers_that_commit_at_once_one_wins_and_its_content_stays(
    storage: LocalStorage,
):
    contents = [f"writer {index}".encode() * 1000 for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda text: storage.put_if_absent("rows/unit", text), contents))
    assert wins.count(True) == 1
    assert storage.read("rows/unit") == contents[wins.index(True)]
    assert storage.list("rows", "unit") == ["rows/unit"]


def test_a_commit_that_is_there_is_not_touched(storage: LocalStorage):
    assert storage.put_if_absent("rows/a", b"first")
    assert not storage.put_if_absent("rows/a", b"second")
    assert storage.read("rows/a") == b"first"


def test_a_writer_that_dies_before_its_commit_leaves_nothing_that_readers_see(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.put_if_absent("rows/a.parquet", b"half")
    (Path(storage.uri) / "rows" / ".writing-0-b.parquet").write_bytes(b"left by a power cut")
    assert storage.list("rows", ".parquet") == []
    assert not storage.exists("rows/a.parquet")


def test_put_replaces_and_leaves_no_other_file(storage: LocalStorage):
    storage.put("images/ab/k.png", b"one")
    storage.put("images/ab/k.png", b"two")
    assert storage.read("images/ab/k.png") == b"two"
    assert [path.name for path in (Path(storage.uri) / "images/ab").iterdir()] == ["k.png"]


def test_looking_creates_nothing(storage: LocalStorage):
    assert storage.list("rows", ".parquet") == []
    assert not storage.exists("README.md")
    assert not Path(storage.uri).exists()


def test_names_come_sorted_with_their_folder_and_without_other_kinds(storage: LocalStorage):
    for name in ("rows/b.parquet", "rows/a.parquet", "rows/c.txt", "rows/deep/d.parquet"):
        storage.put(name, b"")
    assert storage.list("rows", ".parquet") == ["rows/a.parquet", "rows/b.parquet"]


def test_a_worker_gets_the_same_place(storage: LocalStorage):
    storage.put("a", b"1")
    there = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
    assert there.read("a") == b"1"


def test_a_place_without_atomic_commits_is_refused_by_name(tmp_path: Path):
    with pytest.raises(StorageError, match=r"'s3://bucket/out' is not a local folder; name a"):
        open_storage("s3://bucket/out")
    assert open_storage(f"file://{tmp_path}").uri == str(tmp_path)
