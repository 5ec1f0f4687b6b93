"""Where a cluster is: what people write, and what becomes of it."""

import pytest

from pipelines.session.cluster_address import ClusterAddress, find_address
from pipelines.session.cluster_error import ClusterRefusesError


@pytest.mark.parametrize(
    ("given", "variable", "text", "is_variable"),
    [
        (None, None, None, False),
        ("", "", None, False),
        ("local", None, None, False),
        ("local", "10.0.0.1:6379", None, False),
        (None, "local", None, True),
        (None, "10.0.0.1:6379", "10.0.0.1:6379", True),
        ("", "10.0.0.1:6379", "10.0.0.1:6379", True),
        ("head:6379", "10.0.0.1:6379", "head:6379", False),
        ("head:6379", "http://10.0.0.1:8265", "head:6379", False),
        ("auto", None, "auto", False),
        ("auto", "10.0.0.1:6379", "10.0.0.1:6379", True),
        ("ray-head.team-a.svc.cluster.local:6379", None, "ray-head.team-a.svc.cluster.local:6379",
         False),
        ("[2001:db8::1]:6379", None, "[2001:db8::1]:6379", False),
    ],
)  # fmt: skip
def test_the_option_comes_before_the_variable_which_says_what_auto_is(
    given: str | None, variable: str | None, text: str | None, is_variable: bool
):
    environment = {} if variable is None else {"RAY_ADDRESS": variable}
    found = find_address(given, environment)
    assert (found.text, found.is_variable) == (text, is_variable)


def test_an_address_names_host_and_port_unless_ray_is_to_find_them():
    def parts(text: str | None) -> tuple[str, int] | None:
        return ClusterAddress(text=text, is_variable=False).host_and_port

    assert parts("head:6379") == ("head", 6379)
    assert parts("[::1]:6379") == ("::1", 6379)
    assert parts("auto") is None
    assert parts(None) is None


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_a_job_server_is_refused_with_the_command_for_it_and_where_it_was_written(scheme: str):
    url = f"{scheme}://head:8265"
    with pytest.raises(ClusterRefusesError) as refused:
        find_address(None, {"RAY_ADDRESS": url})
    assert str(refused.value) == (
        f"RAY_ADDRESS '{url}' is a job server, and a run joins its cluster at head:6379; send the "
        f"job there with `clora submit JOB --address {url}`, or unset RAY_ADDRESS to use this "
        "machine alone"
    )
    assert refused.value.exit_code == 2
    with pytest.raises(ClusterRefusesError, match="leave --address out") as refused:
        find_address(url, {"RAY_ADDRESS": "10.0.0.1:6379"})
    assert str(refused.value).startswith(f"--address '{url}'")


def test_a_ray_client_server_is_refused_with_two_ways_out():
    with pytest.raises(ClusterRefusesError) as refused:
        find_address("ray://head:10001", {})
    assert "write head:6379" in str(refused.value)
    assert "--address http://head:8265`" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ", "it has blanks"),
        ("10.0.0.1:6379\n", "it has blanks"),
        ("10.0.0.1 :6379", "it has blanks"),
        ("head", "it has no port"),
        ("Local", "it has no port"),
        (":6379", "it has no host"),
        ("head:", "'' is no port"),
        ("head:637g", "'637g' is no port"),
        ("head:0", "'0' is no port"),
        ("head:65536", "a number from 1 to 65535"),
        ("head:٦٣٧٩", "is no port"),
        ("::1:6379", "'::1' is no host"),
        ("[::g]:6379", "is no host"),
        ("head/x:6379", "'head/x' is no host"),
        ("redis://head:6379", "redis:// is no kind of it"),
        ("://head:6379", ":// is no kind of it"),
    ],
)
def test_what_can_be_no_address_is_refused_with_the_reason_and_the_form(text: str, reason: str):
    with pytest.raises(ClusterRefusesError) as refused:
        find_address(text, {})
    said = str(refused.value)
    assert f"is no address of a Ray cluster ({reason}" in said or reason in said
    assert "write HOST:PORT, for example 10.0.0.1:6379" in said
    assert "\n" not in said


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(ClusterRefusesError) as refused:
        find_address("http://me:secret@head:8265", {})
    assert "secret" not in str(refused.value)
    assert "head:6379" in str(refused.value)
