"""Where the job server is, and who answers there, before Ray's own client asks without an end."""

import os
import socket
import threading
from pathlib import Path

import pytest

from jobs.remote import server_address
from jobs.remote.job_server import open_job_server
from jobs.remote.server_address import ServerAddress, check_server, find_server, proxy_words
from jobs.remote.server_error import ServerError, ServerRefusesError
from pipelines.session import knock as knocks


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, no proxy, and little patience."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(server_address, "ANSWER_S", 0.5)
    monkeypatch.setattr(knocks, "KNOCK_S", 0.3)
    monkeypatch.setattr(knocks, "KNOCK_EVERY_S", 0.1)


@pytest.mark.parametrize(
    ("given", "environment", "text", "source"),
    [
        (None, {}, None, "--address"),
        ("auto", {}, None, "--address"),
        ("local", {}, None, "--address"),
        ("http://a:8265", {"RAY_ADDRESS": "http://b:8265"}, "http://a:8265", "--address"),
        ("http://a:8265", {"RAY_API_SERVER_ADDRESS": "x"}, "http://a:8265", "--address"),
        ("", {"RAY_ADDRESS": "http://b"}, "http://b", "RAY_ADDRESS"),
        ("auto", {"RAY_ADDRESS": "https://b/ray"}, "https://b/ray", "RAY_ADDRESS"),
        (
            None,
            {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_API_SERVER_ADDRESS": "http://b:8265"},
            "http://b:8265",
            "RAY_API_SERVER_ADDRESS",
        ),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379", "RAY_ADDRESS"),
    ],
)
def test_what_is_given_comes_before_what_the_environment_says(
    given: str | None, environment: dict[str, str], text: str | None, source: str
):
    assert find_server(given, environment) == ServerAddress(text=text, source=source)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://a b:8265", "it has blanks"),
        ("ray://a:10001", "it is a Ray Client server"),
        ("ftp://a:8265", "ftp:// is no kind of it"),
        ("http://", "it has no host"),
        ("http://:8265", "it has no host"),
        ("http://a:826x", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("head", "it is neither a URL nor HOST:PORT"),
    ],
)
def test_what_can_be_no_job_server_is_refused_with_the_reason_and_the_form(text: str, reason: str):
    with pytest.raises(ServerRefusesError) as refused:
        find_server(None, {"RAY_ADDRESS": text})
    said = str(refused.value)
    assert said.startswith(f"RAY_ADDRESS '{text}' is no address of a job server ({reason}")
    assert "write http://HOST:8265" in said
    assert refused.value.exit_code == 2


def test_a_port_that_is_closed_and_one_that_never_answers_are_sentences_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"no job server answers at .*{url}.*timed out"):
            open_job_server(url)
        with pytest.raises(ServerError, match="something listens") as refused:
            open_job_server(url.removeprefix("http://"))
        assert "or name its dashboard: http://HOST:8265" in str(refused.value)
    with pytest.raises(ServerError, match=r"Connection refused.*ssh -L 8265") as refused:
        open_job_server(url)
    assert refused.value.exit_code == 1


def test_what_answers_and_is_no_web_server_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ServerRefusesError, match="is no web server"):
            open_job_server(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()


def test_requests_to_this_machine_pass_a_proxy_by(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as dead, socket.socket() as bound:
        dead.bind(("127.0.0.1", 0))
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://localhost:{dead.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "internal.example")
        address = ServerAddress(
            text=f"http://127.0.0.1:{bound.getsockname()[1]}", source="--address"
        )
        assert "http_proxy" in proxy_words(address)
        with pytest.raises(ServerError) as refused:
            check_server(address)
    assert "http_proxy" not in str(refused.value)
    assert os.environ["no_proxy"] == "internal.example,127.0.0.1"


def test_a_proxy_that_stands_between_is_named(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{dead.getsockname()[1]}")
        with pytest.raises(ServerError, match=r"the proxy that http_proxy names; no_proxy=head "):
            check_server(ServerAddress(text="http://head:8265", source="--address"))


def test_ray_s_client_gets_the_address_that_was_given_whatever_its_variables_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", str(tmp_path))
    with server_address.only_address(ServerAddress(text="http://a:8265", source="--address")):
        assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://a:8265"
    assert os.environ["RAY_API_SERVER_ADDRESS"] == str(tmp_path)
