import errno
import io
import os
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_kit import S3Server

from manifests.places.locations import expand, read_bytes
from manifests.places.place_names import joined
from pipelines.storage.error import PlaceError, StorageError
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, open_storage


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each promise is asked of a disk and of a real S3 server."""
    if request.param == "disk":
        return open_storage(str(tmp_path / "out"))
    return open_storage(request.getfixturevalue("s3_uri"))


@pytest.fixture
def disk(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def test_of_eight_writers_that_commit_at_once_one_wins_and_its_content_stays(storage: Storage):
    contents = [f"writer {index}".encode() * 1000 for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda text: storage.put_if_absent("rows/unit", text), contents))
    assert wins.count(True) == 1
    assert storage.read("rows/unit") == contents[wins.index(True)]
    assert storage.list("rows", "unit") == ["rows/unit"]


def test_a_commit_that_is_there_is_not_touched(storage: Storage):
    assert storage.put_if_absent("rows/a", b"first")
    assert not storage.put_if_absent("rows/a", b"second")
    assert not storage.put_if_absent("rows/a", b"first"), "equal content is another's all the same"
    assert storage.read("rows/a") == b"first"


def test_a_writer_that_dies_before_its_commit_leaves_nothing_that_readers_see(
    disk: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        disk.put_if_absent("rows/a.parquet", b"half")
    (Path(disk.uri) / "rows" / ".writing-0-b.parquet").write_bytes(b"left by a power cut")
    assert disk.list("rows", ".parquet") == []
    assert not disk.exists("rows/a.parquet")
    assert list(disk.walk("rows")) == ["rows/.writing-0-b.parquet"]


@pytest.mark.parametrize("name", ["../secret", "images/../../secret", "/etc/passwd"])
def test_a_name_that_leads_out_of_the_folder_is_no_file_and_is_not_written(
    disk: LocalStorage, tmp_path: Path, name: str
):
    disk.put("images/a", b"makes the folder")
    (tmp_path / "secret").write_bytes(b"secret")
    for use in (
        disk.read,
        disk.open,
        disk.delete,
        disk.mark,
        lambda name: disk.move("images/a", name),
        lambda name: disk.move(name, "images/b"),
        lambda name: disk.put(name, b"mine"),
        lambda name: disk.put_if_absent(name, b"mine"),
    ):
        with pytest.raises(FileNotFoundError, match="leads out of the folder"):
            use(name)
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_put_replaces_and_leaves_no_other_file(storage: Storage):
    storage.put("images/ab/k.png", b"one")
    storage.put("images/ab/k.png", b"two")
    assert storage.read("images/ab/k.png") == b"two"
    assert list(storage.walk("images")) == ["images/ab/k.png"]


def test_looking_creates_nothing(storage: Storage):
    assert storage.list("rows", ".parquet") == []
    assert list(storage.walk("images")) == []
    assert not storage.exists("README.md")
    storage.delete("README.md")
    for look in (storage.read, lambda name: storage.open(name).__enter__()):
        with pytest.raises(FileNotFoundError):
            look("README.md")
    assert not Path(storage.uri).exists()


def test_names_come_sorted_with_their_folder_and_without_other_kinds(storage: Storage):
    for name in ("rows/b.parquet", "rows/a.parquet", "rows/c.txt", "rows/deep/d.parquet"):
        storage.put(name, b"x")
    assert storage.list("rows", ".parquet") == ["rows/a.parquet", "rows/b.parquet"]
    assert storage.list("row", ".parquet") == []
    assert sorted(storage.walk("rows")) == [
        "rows/a.parquet",
        "rows/b.parquet",
        "rows/c.txt",
        "rows/deep/d.parquet",
    ]


def test_a_file_that_is_replaced_is_listed_with_another_version(storage: Storage):
    for name in ("rows/a", "rows/b", "rows/.writing-c", "rows/deep/d", "rowsy/e"):
        storage.put(name, b"one")
    before = {name: (size, version) for name, size, version in storage.versions("rows")}
    assert {name: size for name, (size, _) in before.items()} == {"rows/a": 3, "rows/b": 3}
    storage.put("rows/a", b"two")
    after = {name: (size, version) for name, size, version in storage.versions("rows")}
    assert after["rows/a"] != before["rows/a"]
    assert after["rows/b"] == before["rows/b"]
    assert list(storage.versions("nothing")) == []


def test_what_is_deleted_is_gone_and_its_folder_can_be_used_again(storage: Storage):
    storage.put("attempts/u/1", b"x")
    storage.delete("attempts/u/1")
    storage.delete("attempts/u/1")
    assert not storage.exists("attempts/u/1")
    storage.put("attempts/u/2", b"y")
    assert storage.list("attempts/u", "") == ["attempts/u/2"]


def test_writers_that_empty_a_folder_again_and_again_do_not_disturb_each_other(
    disk: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipelines.storage.durable_files.sync_file", lambda _path: None)
    monkeypatch.setattr("pipelines.storage.local.sync_file", lambda _path: None)
    monkeypatch.setattr("pipelines.storage.local.sync_folder", lambda _path: None)

    def work(name: str) -> None:
        for _ in range(500):
            disk.put(name, b"here")
            disk.delete(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"makers/{number}.json" for number in range(4)]))
    assert list(disk.walk("")) == []


def test_a_column_is_read_without_the_rest_of_its_file(storage: Storage):
    table = pa.table({"key": ["a", "b"], "image": [os.urandom(400_000) for _ in range(2)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, use_dictionary=False)
    storage.put("rows/u.parquet", sink.getvalue())
    with storage.open("rows/u.parquet") as source, pq.ParquetFile(source) as file:
        assert file.read(columns=["key"])["key"].to_pylist() == ["a", "b"]
    with storage.open("rows/u.parquet") as source:
        assert source.read() == sink.getvalue()


def test_a_file_is_written_in_parts_and_not_at_all_if_one_is_missing(storage: Storage):
    storage.put("images.csv", b"old")

    def parts(*, breaks: bool) -> Iterator[bytes]:
        yield b"x" * 100_000
        if breaks:
            raise ValueError("no more")
        yield b"end"

    with pytest.raises(ValueError, match="no more"):
        storage.put_parts("images.csv", parts(breaks=True))
    assert storage.read("images.csv") == b"old"
    storage.put_parts("images.csv", parts(breaks=False))
    assert storage.read("images.csv") == b"x" * 100_000 + b"end"
    storage.put_parts("empty", [])
    assert storage.read("empty") == b""
    assert sorted(storage.walk("")) == ["empty", "images.csv"]


def test_several_files_are_written_as_one_is(storage: Storage):
    storage.put("images/ab/1.png", b"old")
    storage.put_all({"images/ab/1.png": b"new", "images/cd/2.png": b"", "c": b"x" * 100_000})
    assert storage.read("images/ab/1.png") == b"new"
    assert sorted(storage.sizes("")) == [
        ("c", 100_000),
        ("images/ab/1.png", 3),
        ("images/cd/2.png", 0),
    ]
    storage.put_all({})
    assert len(list(storage.walk(""))) == 3


def test_sizes_are_those_of_finished_files(storage: Storage):
    storage.put("images/ab/.writing-1-k.png", b"broken off")
    storage.put("images/ab/k.png", b"whole")
    assert list(storage.sizes("images")) == [("images/ab/k.png", 5)]
    assert list(storage.sizes("nothing")) == []


def test_a_file_that_is_moved_is_there_and_no_more_here(storage: Storage):
    storage.put("rows/a", b"content")
    storage.move("rows/a", "damaged/run/rows/a")
    assert storage.read("damaged/run/rows/a") == b"content"
    assert not storage.exists("rows/a")
    with pytest.raises(FileNotFoundError):
        storage.move("rows/a", "damaged/run/rows/b")


def test_a_mark_is_its_name(storage: Storage):
    storage.mark("attempts/u/1")
    assert storage.list("attempts/u", "") == ["attempts/u/1"]
    storage.settle("attempts/u")
    storage.settle("nothing")


def test_trying_a_place_leaves_nothing_there(storage: Storage, tmp_path: Path):
    storage.check_writable()
    assert list(storage.walk("")) == []
    assert list(tmp_path.iterdir()) == []
    storage.put("a", b"1")
    storage.check_writable()
    assert list(storage.walk("")) == ["a"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file", "a part of the path is a file"),
        ("file/below", "a part of the path is a file"),
        ("loop/out", "(its links lead in a circle|or a link that leads nowhere)"),
        ("n" * 300, "the name is too long"),
        ("/proc/clora/out", "does not let anything be made there"),
    ],
)
def test_a_place_that_never_can_be_written_is_refused_with_the_reason(
    tmp_path: Path, place: str, reason: str
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    for use in (LocalStorage.check_writable, lambda disk: disk.put("images/a", b"1")):
        with pytest.raises(PlaceError, match=f"cannot be written .*{reason}.*name a"):
            use(LocalStorage(tmp_path / place))
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_may_come_back(disk: LocalStorage, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for write in (disk.put, disk.put_if_absent):
        with pytest.raises(StorageError, match="the disk is full; make room and run") as raised:
            write("images/a", b"1")
        assert not isinstance(raised.value, PlaceError)
    assert list(disk.walk("")) == [], "what broke off is taken away"


def test_a_file_system_without_hard_links_is_found_before_a_run(
    disk: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(PlaceError, match="its file system has no hard links"):
        disk.check_writable()


def test_a_sync_that_fails_is_no_write(disk: LocalStorage, monkeypatch: pytest.MonkeyPatch):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.put("images/a", b"old")
    monkeypatch.setattr(os, "fsync", broken)
    for write in (disk.put, disk.put_if_absent):
        with pytest.raises(StorageError, match="Input/output error"):
            write("images/b", b"new")
    assert not disk.exists("images/b")


def test_a_worker_gets_the_same_place(storage: Storage):
    storage.put("a", b"1")
    text = pickle.dumps(storage)
    there = pickle.loads(text)  # noqa: S301 - our own bytes
    assert there.read("a") == b"1"
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "no secret").encode() not in text


def test_a_worker_is_as_patient_as_its_driver():
    storage = open_storage("s3://bucket/out", retry_s=7.5)
    there = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
    assert (there.uri, there._retry_s) == ("s3://bucket/out", 7.5)
    assert open_storage("s3://bucket/out")._retry_s == 60.0


WRITES = {
    "put": lambda storage: storage.put("images/b", b"2"),
    "put_all": lambda storage: storage.put_all({"images/b": b"2", "c": b"3"}),
    "put_if_absent": lambda storage: storage.put_if_absent("rows/b", b"2"),
    "mark": lambda storage: storage.mark("attempts/b"),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("seen", ["written", "listed", "settled"])
@pytest.mark.parametrize("where", ["here", "in a worker"])
def test_a_folder_that_is_moved_away_is_missed_and_not_made_again(
    disk: LocalStorage, tmp_path: Path, write: str, seen: str, where: str
):
    LocalStorage(tmp_path / "out").put("rows/a", b"1")
    if seen == "written":
        disk.mark("attempts/a")
    elif seen == "listed":
        assert disk.list("rows", "") == ["rows/a"]
    else:
        disk.settle("rows")
    user = disk if where == "here" else pickle.loads(pickle.dumps(disk))  # noqa: S301 - ours
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"/out is gone: it was moved or .* put it back, and"):
        WRITES[write](user)
    assert not (tmp_path / "out").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    WRITES[write](user)
    assert disk.read("rows/a") == b"1"


def test_a_folder_that_is_moved_away_in_the_middle_of_a_write_is_missed(
    disk: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk.put("images/a", b"1")
    sync = os.fsync

    def moving(handle: int) -> None:
        sync(handle)
        if (tmp_path / "out").exists():
            (tmp_path / "out").rename(tmp_path / "elsewhere")

    monkeypatch.setattr(os, "fsync", moving)
    for write in (disk.put, disk.put_if_absent):
        with pytest.raises(StorageError, match="is gone: it was moved or deleted"):
            write("images/b", b"2")
        (tmp_path / "elsewhere").rename(tmp_path / "out")
    assert disk.read("images/a") == b"1"


def test_a_folder_within_another_is_not_made_where_that_is_gone(tmp_path: Path):
    out = tmp_path / "out"
    inner = open_storage(f"{out}/references/dino", within=str(out))
    with pytest.raises(StorageError, match=f"{out} is gone"):
        inner.put("rows/a", b"1")
    assert list(tmp_path.iterdir()) == []
    open_storage(str(out)).put("leases/1", b"")
    inner.put("rows/a", b"1")
    assert (out / "references/dino/rows/a").read_bytes() == b"1"


def test_trying_or_looking_at_a_place_that_is_not_there_lets_it_be_made_later(
    disk: LocalStorage, tmp_path: Path
):
    disk.check_writable()
    disk.settle("rows")
    assert disk.list("rows", "") == []
    disk.delete("a")
    disk.put("a", b"1")
    disk.delete("a")
    assert (tmp_path / "out").is_dir(), "the folder itself stays"
    disk.put("a", b"2")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://my bucket/out", r"'s3://my bucket/out' names no bucket"),
        ("s3:///out", r"names no bucket"),
        ("ftp://host/out", r"'ftp://host/out' is in a store that is not known; name a folder"),
        ("s3://key:secret@bucket/out", r"a s3:// location holds credentials; take them out"),
        (
            "s3://bucket/out?secret_key=secret",
            r"have no option 'secret_key'; known: endp",
        ),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_and_no_secret_is_repeated(uri: str, sentence: str):
    with pytest.raises(StorageError, match=sentence) as refused:
        open_storage(uri)
    assert "secret" not in str(refused.value).replace("secret_key", "")


@pytest.mark.parametrize(
    "options",
    [
        "endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1",
        "endpoint_override=http%3A%2F%2F127.0.0.1%3A{port}",
    ],
)
def test_a_store_that_its_uri_names_is_written_and_read_by_that_name_alone(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch, options: str
):
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    options = f"?{options.format(port=s3_server.port)}"
    storage = open_storage(f"{s3_uri}/out/{options}")
    storage.check_writable()
    storage.put("rows/a.csv", b"1")
    assert storage.uri == f"{s3_uri}/out{options}"
    assert open_storage(storage.uri).read("rows/a.csv") == b"1"
    assert pickle.loads(pickle.dumps(storage)).list("rows", "") == ["rows/a.csv"]  # noqa: S301
    (file,) = expand(storage.uri, suffixes=(".csv",))
    assert file == joined(storage.uri, "rows/a.csv") == f"{s3_uri}/out/rows/a.csv{options}"
    assert read_bytes(file, max_bytes=10) == b"1"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{s3_uri}/out/b{options} does not")):
        storage.read("b")


def test_a_file_uri_is_a_folder(tmp_path: Path):
    assert open_storage(f"file://{tmp_path}").uri == str(tmp_path)


def test_a_store_that_overlooks_the_condition_of_a_commit_is_found_before_a_run(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
):
    storage = open_storage(f"{s3_uri}/out")
    put = obstore.put
    monkeypatch.setattr(
        obstore, "put", lambda *args, **options: put(*args, **{**options, "mode": "overwrite"})
    )
    with pytest.raises(PlaceError, match="overlooks the condition that a name must be free"):
        storage.check_writable()
    assert list(storage.walk("")) == []


def test_wrong_credentials_are_told_at_once_by_name_of_the_object_and_without_themselves(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(
        StorageError, match=r"out/a cannot be written \(403 Forbidden: Sig.*credentials"
    ) as no:
        open_storage(f"{s3_uri}/out").put("a", b"1")
    assert "not-the-secret" not in str(no.value)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(no.value)
