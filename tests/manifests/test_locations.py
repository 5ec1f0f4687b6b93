"""Places: local paths and stores behave alike, and remote files come here once and whole."""

from pathlib import Path

import pytest
from pyarrow import fs

from manifests.places import file_cache, locations
from manifests.places.file_cache import local_copy
from manifests.places.locations import LocationError, expand, read_bytes
from manifests.places.place_names import absolute, joined, parent, split_options


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store at s3://bucket that is really a folder."""
    folder = tmp_path / "store"
    (folder / "bucket").mkdir(parents=True)
    store = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    monkeypatch.setattr(locations, "_remote", lambda _root: store)
    return folder / "bucket"


@pytest.mark.parametrize(
    ("text", "beside", "expected"),
    [
        ("a/b", "/jobs", "/jobs/a/b"),
        ("../b", "/jobs/x", "/jobs/b"),
        ("./b/../c", "/jobs", "/jobs/c"),
        ("/a", "/jobs", "/a"),
        ("s3://b/k", "/jobs", "s3://b/k"),
        ("k.yaml", "s3://b/jobs", "s3://b/jobs/k.yaml"),
        ("../k.yaml", "s3://b/jobs", "s3://b/k.yaml"),
        ("k", "s3://b/jobs?endpoint_override=h:1", "s3://b/jobs/k?endpoint_override=h:1"),
        (".", "s3://b/jobs?region=x", "s3://b/jobs?region=x"),
        ("file:///a%20b", "/jobs", "/a b"),
    ],
)
def test_relative_places_start_beside_what_names_them(text, beside, expected):
    assert absolute(text, beside=beside) == expected


def test_the_home_folder_is_the_users(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("~/a", beside="/jobs") == "/home/me/a"


def test_the_folder_of_a_file_keeps_the_stores_options():
    assert parent("s3://b/x/y?a=1") == "s3://b/x?a=1"
    assert parent("/x/y") == "/x"


@pytest.mark.parametrize("folder", ["/x", "/x?y", "s3://b/x", "s3://b/x?region=a&scheme=http"])
def test_a_name_in_a_folder_is_in_that_folder_and_the_stores_options_stay_at_the_end(folder: str):
    place = joined(folder, "a/b")
    assert parent(parent(place)) == folder
    assert split_options(place) == (f"{split_options(folder)[0]}/a/b", split_options(folder)[1])


def test_a_store_is_read_listed_and_globbed_like_a_disk(bucket):
    (bucket / "x").mkdir()
    for name in ("x/a.csv", "x/b.csv", "c.csv"):
        (bucket / name).write_text(name)
    assert read_bytes("s3://bucket/x/a.csv", max_bytes=10) == b"x/a.csv"
    assert expand("s3://bucket/x", suffixes=(".csv",)) == [
        "s3://bucket/x/a.csv",
        "s3://bucket/x/b.csv",
    ]
    assert expand("s3://bucket/*/b*", suffixes=()) == ["s3://bucket/x/b.csv"]


def test_a_file_larger_than_expected_is_not_read_whole(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(LocationError, match="is larger than 10 bytes"):
        read_bytes(str(tmp_path / "big"), max_bytes=10)


def test_a_local_path_is_its_own_copy(tmp_path):
    assert local_copy(str(tmp_path / "x")) == tmp_path / "x"


def test_a_remote_file_is_fetched_once_and_named_by_its_content(bucket, tmp_path, monkeypatch):
    (bucket / "x.safetensors").write_bytes(b"weights")
    cache = tmp_path / "cache"
    fetched: list[str] = []
    real = file_cache._fetch
    monkeypatch.setattr(
        file_cache, "_fetch", lambda uri, *rest: (fetched.append(uri), real(uri, *rest))[1]
    )
    first = local_copy("s3://bucket/x.safetensors", cache=cache)
    again = local_copy("s3://bucket/x.safetensors", cache=cache)
    assert first == again
    assert first.read_bytes() == b"weights"
    assert len(fetched) == 1
    (bucket / "x.safetensors").write_bytes(b"other weights")
    other = local_copy("s3://bucket/x.safetensors", cache=cache)
    assert other.read_bytes() == b"other weights"
    assert first.read_bytes() == b"weights"
    leftovers = [path for path in (cache / "files").iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_a_known_content_is_taken_from_the_cache_without_asking_the_store(bucket, tmp_path):
    (bucket / "x.safetensors").write_bytes(b"weights")
    copy = local_copy("s3://bucket/x.safetensors", cache=tmp_path)
    (bucket / "x.safetensors").unlink()
    assert local_copy("s3://bucket/x.safetensors", sha256=copy.stem, cache=tmp_path) == copy


def test_a_remote_file_that_is_missing_or_too_large_is_told(bucket, tmp_path):
    with pytest.raises(LocationError, match=r"s3://bucket/none does not exist"):
        local_copy("s3://bucket/none", cache=tmp_path)
    (bucket / "big").write_bytes(b"x" * 11)
    with pytest.raises(LocationError, match="has 11 bytes; at most 10 are fetched"):
        local_copy("s3://bucket/big", max_bytes=10, cache=tmp_path)


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("CLORA_CACHE", "/a")
    assert file_cache.cache_folder() == Path("/a")
    monkeypatch.delenv("CLORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert file_cache.cache_folder() == Path("/b/clora")


def test_a_home_of_nobody_is_an_ordinary_name():
    assert absolute("~nobody-of-this-name/x", beside="/data") == "/data/~nobody-of-this-name/x"


def test_a_glob_with_too_many_crossings_is_a_sentence(tmp_path: Path):
    with pytest.raises(LocationError, match=r"holds \*\* more than 2 times; name the folders"):
        expand(f"{tmp_path}/**/a/**/b/**/c.csv", suffixes=(".csv",))
