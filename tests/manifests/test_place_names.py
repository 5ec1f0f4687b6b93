"""Names of places: what is put to them, and what is in them, is found under the same name."""

import pytest

from manifests.places.locations import LocationError, expand, read_bytes
from manifests.places.place_names import BadAddressError, joined, split_uri
from manifests.places.store_address import store_address
from pipelines.storage.error import PlaceError
from pipelines.storage.storage import open_storage


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("/data/out", "/data/out/rows"),
        ("/data/out/", "/data/out/rows"),
        ("/", "/rows"),
        ("s3://b/out/?region=r", "s3://b/out/rows?region=r"),
        ("s3://b", "s3://b/rows"),
    ],
)
def test_a_name_in_a_folder_has_one_slash_before_it(folder: str, place: str):
    assert joined(folder, "rows") == place


@pytest.mark.parametrize("uri", ["s3://[b/x", "s3://b/a#1.csv"])
def test_a_uri_that_would_be_read_otherwise_is_refused_everywhere(uri: str):
    for ask in (split_uri, store_address):
        with pytest.raises(BadAddressError, match=r"correct it|%23"):
            ask(uri)
    with pytest.raises(LocationError, match=r"correct it|%23"):
        read_bytes(uri, max_bytes=10)
    with pytest.raises(PlaceError, match=r"output .*(correct it|%23)"):
        open_storage(uri)


def test_objects_of_any_name_are_listed_by_names_that_open_them(s3_uri: str):
    names = ["a#1.csv", "a?1.csv", "a%41.csv", "aA.csv", "a b.csv", "a+1.csv"]
    storage = open_storage(s3_uri)
    for name in names:
        storage.put(name, name.encode())
    found = expand(f"{s3_uri}/", suffixes=(".csv",))
    assert sorted(read_bytes(place, max_bytes=100).decode() for place in found) == sorted(names)


def test_an_output_is_written_where_its_uri_is_read(s3_uri: str):
    open_storage(f"{s3_uri}/50%25 grey").put("one.txt", b"1")
    assert read_bytes(f"{s3_uri}/50%25 grey/one.txt", max_bytes=10) == b"1"
