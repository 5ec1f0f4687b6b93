"""Which texts name a file of the hub, and what is said of those that nearly do."""

import pytest

from jobs.job.model_names import is_hub_name
from manifests.places.hub_names import HubFile, hub_file, hub_hint, is_open_repository

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "revision", "path"),
    [
        ("owner/name@main:cat.safetensors", "main", "cat.safetensors"),
        (f"owner/name@{COMMIT}:sub/dir/my cat (v2).safetensors", COMMIT,
         "sub/dir/my cat (v2).safetensors"),
        ("owner/name@refs/pr/1:unet", "refs/pr/1", "unet"),
        ("owner/name@main:unet/", "main", "unet"),
        ("owner/name@main:", "main", ""),
        ("owner/name@main:a:b@c.safetensors", "main", "a:b@c.safetensors"),
    ],
)  # fmt: skip
def test_a_name_has_a_repository_a_revision_and_a_path(text: str, revision: str, path: str):
    found = hub_file(text)
    assert found == HubFile("owner/name", revision, path)
    assert found is not None
    assert found.is_pinned == (revision == COMMIT)
    assert hub_file(str(found)) == found
    assert is_hub_name(text.partition(":")[0])


@pytest.mark.parametrize(
    "text",
    [
        "cat.safetensors",
        "/srv/owner/name@main:cat.safetensors",
        "./owner/name@main:cat.safetensors",
        "s3://bucket/name@main:cat.safetensors",
        "owner/name:cat.safetensors",
        "owner/name@main",
        "owner/name@:cat.safetensors",
        "owner/name@main:../cat.safetensors",
        "owner/name@main:/cat.safetensors",
        "owner/name@main:a//cat.safetensors",
        "owner/name@main:.git/config",
        "owner/name@main:a\\..\\cat.safetensors",
        "owner/..@main:cat.safetensors",
        "owner/name@../x:cat.safetensors",
    ],
)
def test_nothing_else_is_one(text: str):
    assert hub_file(text) is None


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("owner/name:cat.safetensors", "write owner/name@REVISION:cat.safetensors"),
        ("/srv/jobs/owner/name:a/cat.safetensors", "write owner/name@REVISION:a/cat.safetensors"),
        ("/srv/owner/name@main", "write owner/name@main:FILE.safetensors"),
        ("/srv/owner/name@main:../x", "no part of that is empty or begins with a dot"),
        ("https://huggingface.co/o/n/resolve/main/my%20cat.safetensors?download=true",
         "write o/n@main:my cat.safetensors"),
        ("https://huggingface.co/o/n/blob/v1/a/cat.safetensors",
         "write o/n@v1:a/cat.safetensors"),
        ("https://huggingface.co/o/n", "write o/n@main:FILE.safetensors"),
        ("hf://o/n@v1/a/cat.safetensors", "write o/n@v1:a/cat.safetensors"),
    ],
)  # fmt: skip
def test_what_was_meant_as_one_is_named_as_it_should_be(place: str, words: str):
    assert words in hub_hint(place)


@pytest.mark.parametrize(
    "place",
    ["/srv/loras/cat.safetensors", "/srv/loras@2/cat.safetensors", "cat.safetensors", "/srv/a:b",
     "s3://bucket/loras/cat.safetensors", "https://example.org/cat.safetensors"],
)  # fmt: skip
def test_other_places_get_no_advice_about_the_hub(place: str):
    assert hub_hint(place) == ""


@pytest.mark.parametrize(
    ("root", "is_open"),
    [
        ("hf://", True),
        ("hf://owner", True),
        ("hf://owner/", True),
        ("hf://owner/name", True),
        ("hf://own", False),
        ("hf://owner/nam", False),
        ("hf://other/name", False),
        ("s3://owner/name", False),
        ("/", False),
    ],
)
def test_a_root_opens_a_repository_an_owner_or_the_hub(root: str, *, is_open: bool):
    assert is_open_repository("owner/name", root) == is_open
