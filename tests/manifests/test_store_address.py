"""A store is what its URI says, then what the environment says, and never holds a secret."""

import pytest

from manifests.places.store_address import BadAddressError, StoreAddress, store_address

VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ("", ""),
        ("?endpoint_override=h:9000", "https://h:9000"),
        ("?endpoint_override=h:9000&scheme=http", "http://h:9000"),
        ("?scheme=http&endpoint_override=h", "http://h"),
        ("?endpoint_override=http%3A%2F%2Fh%3A9000", "http://h:9000"),
        ("?endpoint_override=http://h:9000", "http://h:9000"),
    ],
)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_every_spelling_of_an_endpoint_is_one_url(scheme: str, options: str, endpoint: str):
    address = store_address(f"{scheme}://bucket/some/key{options}")
    assert address == StoreAddress(scheme=scheme, bucket="bucket", endpoint=endpoint)


def test_the_uri_comes_before_the_environment_and_that_fills_in_the_rest(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "r1")

    def found(uri: str) -> tuple[str, str | None]:
        address = store_address(uri).in_environment()
        return address.endpoint, address.region

    assert found("s3://b/k") == ("http://all:1", "r1")
    assert found("s3://b/k?region=r2") == ("http://all:1", "r2")
    assert found("s3://b/k?endpoint_override=h") == ("https://h", "r1")
    assert found("gs://b/k") == ("", None), "the variables are Amazon's"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    monkeypatch.setenv("AWS_REGION", "r3")
    assert found("s3://b/k") == ("http://s3:1", "r3")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://key:secret@b/k", "a s3:// location holds credentials; take them out of the name"),
        ("s3://b/k?endpoint_override=key:secret@h", "holds credentials"),
        ("s3://b/k?secret_key=secret", "no option 'secret_key'; known: endpoint_override, region"),
        ("s3://b/k?regions=secret", "no option 'regions'; did you mean 'region'?"),
        ("gs://b/k?region=secret", "no option 'region'; known: endpoint_override, scheme"),
        ("s3://b/k?endpoint_override=ftp://h", r"should be http\(s\)://host:port, got 'ftp://h'"),
        ("s3://b/k?endpoint_override=http://", r"should be http\(s\)://host:port"),
    ],
)
def test_what_names_no_store_is_refused_and_no_value_of_a_wrong_option_is_repeated(
    uri: str, sentence: str
):
    with pytest.raises(BadAddressError, match=sentence) as refused:
        store_address(uri)
    assert "secret" not in str(refused.value).replace("secret_key", "")


def test_an_endpoint_of_the_environment_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    address = store_address("s3://b/k")
    with pytest.raises(BadAddressError, match=r"^AWS_ENDPOINT_URL should be .*environment$"):
        address.in_environment()
    assert store_address("s3://b/k?endpoint_override=h").in_environment().endpoint == "https://h"
