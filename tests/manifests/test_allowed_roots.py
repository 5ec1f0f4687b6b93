"""What a service opens is open and nothing else, however a place is written."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import row, write_catalog, write_jsonl, write_lora

from manifests.loras.catalog import read_lora_catalog
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots, allowed_roots
from manifests.places.locations import LocationError
from manifests.rows.regions import RegionRequest, resolved_region
from manifests.tables.readers import read_rows
from manifests.text.problems import Problem


def test_without_the_variable_every_place_is_open():
    assert allowed_roots({}) == EVERYWHERE
    assert EVERYWHERE.refusal("/etc/passwd") is None
    assert EVERYWHERE.refusal("s3://bucket/x") is None


def test_the_variable_lists_folders_and_stores():
    found = allowed_roots({"CLORA_ALLOWED_ROOTS": "/data/loras, s3://bucket/loras"})
    assert found == AllowedRoots(("/data/loras", "s3://bucket/loras"))
    assert allowed_roots({"CLORA_ALLOWED_ROOTS": ""}).refusal("/data/x") is not None


@pytest.mark.parametrize("value", ["data", "./data", "/a,../b", "file:///data"])
def test_a_root_that_is_no_place_is_refused(value):
    with pytest.raises(ValueError, match="CLORA_ALLOWED_ROOTS holds"):
        allowed_roots({"CLORA_ALLOWED_ROOTS": value})


ROOTS = AllowedRoots(("/data/loras", "s3://bucket/loras", "s3://b?endpoint_override=10.0.0.9:9000"))


@pytest.mark.parametrize(
    "place",
    [
        "/data/loras/x.safetensors",
        "/data/loras",
        "/data/loras/../loras/x",
        "file:///data/loras/x",
        "s3://bucket/loras/x",
        "s3://bucket/loras",
        "s3://bucket/loras/%78",
        "s3://b/x?endpoint_override=10.0.0.9:9000",
    ],
)
def test_what_is_below_a_root_is_open(place):
    assert ROOTS.refusal(place) is None


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/etc/passwd", "is outside the places that this service opens"),
        ("/data/loras/../secret", "is outside"),
        ("/data/loras2/x", "is outside"),
        ("/data", "is outside"),
        ("relative", "is outside"),
        ("file:///etc/passwd", "is outside"),
        ("FILE:///etc/passwd", "is outside"),
        ("file://host/etc/passwd", "is outside"),
        ("file:///data/loras/%2e%2e/secret", "is outside"),
        ("/data/loras/\0", "holds a control character"),
        ("/data/loras/a\nb", "holds a control character"),
        ("s3://bucket/lo\tras/x", "holds a control character"),
        ("s3://bucket/lor%61s/x", "is outside"),
        ("s3://bucket/loras#/x", "is outside"),
        ("s3://bucket/other/x", "is outside"),
        ("s3://bucket/loras2/x", "is outside"),
        ("s3://bucket/loras/../other", "is outside"),
        ("s3://bucket/loras/%2E%2E/other", "is outside"),
        ("s3://Bucket/loras/x", "is outside"),
        ("gs://bucket/loras/x", "is outside"),
        ("s3://bucket/loras/x?endpoint_override=evil.example", "is outside"),
        ("s3://bucket/loras/x?endpoint_override=169.254.169.254", "address 169.254.169.254"),
        ("s3://bucket/loras/x?endpoint_override=http://[::1]:80/", "private address ::1"),
        ("s3://bucket/loras/x?endpoint_override=localhost:9000", "private address localhost"),
        ("http://10.0.0.1/x.safetensors", "leads to the private address 10.0.0.1"),
        ("https://192.168.1.1/x", "private address 192.168.1.1"),
        ("http://127.0.0.1:8265/api", "private address 127.0.0.1"),
        ("http://metadata.google.internal/x", "private address metadata.google.internal"),
        ("hdfs://172.16.0.1:8020/x", "private address 172.16.0.1"),
        ("http://[fd00::1]/x", "private address fd00::1"),
        ("http://[bad/x", "is no place that can be judged"),
        ("https://example.com/x", "is outside"),
        ("s3://b/x?endpoint_override=10.0.0.8:9000", "private address 10.0.0.8"),
    ],
)
def test_what_is_not_is_refused_with_the_reason(place, words):
    refusal = ROOTS.refusal(place)
    assert refusal is not None
    assert words in refusal
    assert "CLORA_ALLOWED_ROOTS" in refusal or "correct it" in refusal or "control" in refusal


def test_a_link_is_where_it_leads(tmp_path: Path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "x").write_text("secret")
    (inside / "link").symlink_to(outside / "x")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    (tmp_path / "alias").symlink_to(inside)
    roots = AllowedRoots((str(inside),))
    for name in ("link", "folder/x", "folder/../../out/x"):
        assert roots.refusal(str(inside / name)) is not None
    assert roots.refusal(str(inside / "new" / "x")) is None
    assert roots.refusal(str(tmp_path / "alias" / "x")) is None
    assert AllowedRoots((str(tmp_path / "alias"),)).refusal(str(inside / "x")) is None
    roots.refusal(str(inside / "loop"))  # a sentence or None, no traceback


@settings(deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "%2e%2e", "loras", "", "data"]), max_size=8))
def test_no_path_of_dots_leaves_the_root_unnoticed(parts):
    place = "/data/loras/" + "/".join(parts)
    is_inside = _resolved(place)[:2] == ["data", "loras"]
    assert (ROOTS.refusal(place) is None) == is_inside


def _resolved(place: str) -> list[str]:
    kept: list[str] = []
    for part in place.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return kept


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9]{1,4}://\S{0,30}", fullmatch=True))
def test_any_text_is_judged_without_a_traceback(place):
    refusal = ROOTS.refusal(place)
    assert refusal is None or refusal


HOSTILE = [
    "../outside.safetensors",
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "~/x.safetensors",
    "http://169.254.169.254/latest/meta-data",
    "s3://bucket/x.safetensors?endpoint_override=127.0.0.1:1",
    "link.safetensors",
]


@pytest.mark.parametrize("uri", HOSTILE)
def test_a_hostile_catalog_entry_is_a_problem_and_the_rest_is_kept(tmp_path: Path, uri: str):
    folder = tmp_path / "in"
    catalog = write_catalog(folder)
    write_lora(tmp_path / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    entries = yaml.safe_load(catalog.read_text())["loras"]
    entries.append({"name": "evil", "uri": uri, "subject": "cat"})
    catalog.write_text(yaml.safe_dump({"loras": entries}))
    read = read_lora_catalog(str(catalog), allowed=AllowedRoots((str(folder),)))
    assert set(read.entries) == {"cat", "dog", "ink"}
    (problem,) = read.problems
    assert (problem.row_id, problem.field) == ("evil", "uri")
    assert "this service opens" in problem.problem or "private address" in problem.problem
    # Without a service's list all is as before.
    assert (
        len(read_lora_catalog(str(catalog)).entries) == 4
    )  # without a service's list all is as before


def test_a_mask_outside_is_refused_and_not_read(tmp_path: Path):
    request = RegionRequest(mask="/etc/passwd")
    with pytest.raises(LocationError, match=r"/etc/passwd. is outside the places"):
        resolved_region(request, folder=str(tmp_path), allowed=AllowedRoots((str(tmp_path),)))


def test_a_link_in_a_folder_of_manifests_is_a_problem_and_its_neighbours_are_read(tmp_path: Path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (outside / "more").mkdir(parents=True)
    inside.mkdir()
    for name in ("secret.jsonl", "more/secret.jsonl"):
        write_jsonl(outside / name, [row(prompt="a secret")])
    write_jsonl(inside / "rows.jsonl", [row()])
    (inside / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (inside / "folder").symlink_to(outside / "more")
    for manifest in (inside, inside / "**.jsonl", inside / "*.jsonl"):
        found = list(read_rows(str(manifest), allowed=AllowedRoots((str(inside),))))
        good = [one for one in found if not isinstance(one, Problem)]
        problems = [one for one in found if isinstance(one, Problem)]
        assert [one.values["prompt"] for one in good] == [row()["prompt"]]
        assert {Path(problem.place).name for problem in problems} >= {"link.jsonl"}
        assert all("is outside the places" in problem.problem for problem in problems)
    (refused,) = read_rows(str(outside), allowed=AllowedRoots((str(inside),)))
    assert isinstance(refused, Problem)


def test_a_catalog_outside_is_refused_and_not_read(tmp_path: Path):
    catalog = write_catalog(tmp_path / "out")
    read = read_lora_catalog(str(catalog), allowed=AllowedRoots((str(tmp_path / "in"),)))
    assert not read.entries
    (problem,) = read.problems
    assert "is outside the places that this service opens" in problem.problem


@pytest.mark.parametrize("roots", [EVERYWHERE, ROOTS])
@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "gs://secret@b/x", "s3://a@secret@b/"])
def test_credentials_in_a_name_are_refused_and_not_printed(tmp_path: Path, roots, uri):
    if roots.roots is not None:
        roots = AllowedRoots((*roots.roots, str(tmp_path)))
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": [{"name": "x", "uri": uri, "subject": "cat"}]}))
    (problem,) = read_lora_catalog(str(path), allowed=roots).problems
    assert "holds credentials; take them out of the name" in problem.problem
    assert "secret" not in str(problem)
    with pytest.raises(LocationError, match=r"\*\*\*@b.* holds credentials") as caught:
        resolved_region(RegionRequest(mask=uri), folder="/", allowed=roots)
    assert "secret" not in str(caught.value)
