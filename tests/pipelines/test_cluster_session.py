"""What becomes of a cluster that cannot be had: a sentence, whatever Ray raises."""

import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from jobs.exit_code import BAD_INPUT, SOME_FAILED
from pipelines.session import cluster_session as sessions
from pipelines.session import knock as knocks
from pipelines.session.cluster_error import ClusterError
from pipelines.session.cluster_session import cluster_session
from pipelines.session.private_folder import folder_prefix


class AuthenticationError(RuntimeError):
    """Named as Ray's own is."""


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let a head answer wherever one is asked for; return where."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(sessions, "knock", lambda host, port, **_: asked.append((host, port)))
    return asked


RAY = re.escape(version("ray"))
PYTHON = re.escape(platform.python_version())
REFUSED_WORDS = """Failed. Last error: Traceback (most recent call last):
  File "node.py", line 996
ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken
"""
SILENT_WORDS = """Failed. Last error: Traceback (most recent call last):
  File "node.py", line 996
ray.RpcError: refused
"""
FAULTS = [
    RuntimeError("Failed to start GCS.\nLast 0 lines"),
    TimeoutError("Timed out waiting for file"),
    ConnectionError("refused"),
    ValueError("The requested object store memory size is greater"),
    AssertionError(),
    AuthenticationError("no token"),
    OSError(28, "No space left on device"),
    Exception("The current node timed out during startup."),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_private_start_that_fails_in_any_way_is_a_sentence_and_leaves_its_logs(
    base: Path, fake: Any, fault: Exception, capfd: pytest.CaptureFixture[str]
):
    fake(fault)
    with pytest.raises(ClusterError) as refused, cluster_session(None):
        pass
    text = str(refused.value)
    (folder,) = base.iterdir()
    words = str(fault).splitlines()[0] if str(fault) else "AssertionError"
    assert f"could not be started on this machine; after 0 s: {words}" in text
    assert f"{folder}/ray/session_latest/logs" in text
    assert text.startswith("Ray said: C++ said")
    assert "could not be started" in text.splitlines()[-1]
    assert "\x1b" not in text
    assert "ulimit -u" in text
    assert refused.value.exit_code == SOME_FAILED
    assert capfd.readouterr() == ("", "")


def other_versions(ray_version: str, python_version: str) -> Exception:
    """Return what Ray itself raises for a cluster of these versions."""
    # Not at the top: a session's private cluster must be set up before Ray is imported.
    from ray._private.utils import check_version_info

    metadata = {"ray_version": ray_version, "python_version": python_version}
    with pytest.raises(RuntimeError) as raised:
        check_version_info(metadata, "node 10.0.0.2")
    return raised.value


@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        (chained(ConnectionError("Failed"), AuthenticationError("bad")), "wants a token", 2),
        (AuthenticationError("none"), "RAY_AUTH_TOKEN_PATH", 2),
        (RuntimeError(REFUSED_WORDS), "RAY_AUTH_TOKEN_PATH", 2),
        (RuntimeError(SILENT_WORDS), r"Last error: ray\.RpcError: refused\)", 1),
        (
            lambda: other_versions("2.9.0", "3.9.1"),
            rf"runs Ray 2\.9\.0 with Python 3\.9\.1, and this machine Ray {RAY} with {PYTHON}; "
            "install the same versions",
            2,
        ),
        (RuntimeError("Version mismatch: in other words"), r"other versions \(Version mismatch", 2),
        (ValueError("of some kind"), r"no Ray cluster answers at .*\(of some kind\)", 1),
        (chained(ConnectionError("Failed"), TimeoutError("slow")), "Failed: slow", 1),
        (Exception("odd"), "no Ray cluster answers at --address 'head:6379'", 1),
    ],
)
def test_a_cluster_that_cannot_be_used_is_a_sentence_with_the_way_out(
    base: Path,
    fake: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    fault: Exception | Callable[[], Exception],
    words: str,
    code: int,
):
    answered(monkeypatch)
    fake(fault if isinstance(fault, Exception) else fault())
    with pytest.raises(ClusterError, match=words) as refused, cluster_session("head:6379"):
        pass
    assert "'head:6379'" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == code
    assert list(base.iterdir()) == []
    assert capfd.readouterr() == ("", ""), "what Ray says meanwhile is not shown"


@pytest.mark.usefixtures("base")
def test_a_refused_token_is_said_apart_from_one_that_is_not_sent(
    fake: Any, monkeypatch: pytest.MonkeyPatch
):
    answered(monkeypatch)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    fake(AuthenticationError("bad"))
    with (
        pytest.raises(ClusterError, match="refuses this machine's token"),
        cluster_session("head:6379"),
    ):
        pass


@pytest.mark.usefixtures("base")
def test_a_port_where_nobody_listens_is_said_before_ray_waits_for_it(
    fake: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(knocks, "KNOCK_S", 0.2)
    monkeypatch.setattr(knocks, "KNOCK_EVERY_S", 0.05)
    ray = fake()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"localhost:{bound.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match=f"no Ray cluster answers at .*'{address}' .*refused"),
            cluster_session(address),
        ):
            pass
    assert ray.options == {}


@pytest.mark.usefixtures("base")
def test_where_a_head_answers_ray_connects_and_lets_go_of_it(
    fake: Any, monkeypatch: pytest.MonkeyPatch
):
    asked = answered(monkeypatch)
    ray = fake(host="192.0.2.7")
    with cluster_session("localhost:6379") as cluster:
        assert not cluster.is_private
    assert asked == [("192.0.2.7", 6379)]
    assert ray.options["address"] == "localhost:6379"
    assert ray.is_shut_down


@pytest.mark.usefixtures("base")
def test_an_address_that_cannot_be_one_is_refused_before_ray_is_started(
    fake: Any, monkeypatch: pytest.MonkeyPatch
):
    ray = fake()
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ClusterError, match="unset RAY_ADDRESS") as refused, cluster_session(None):
        pass
    assert refused.value.exit_code == BAD_INPUT
    assert ray.options == {}


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_private_cluster_has_a_folder_a_token_and_loopback_for_as_long_as_it_lasts(
    base: Path, fake: Any, address: str | None
):
    ray = fake()
    before = dict(os.environ)
    with cluster_session(address) as cluster:
        assert cluster.is_private
        (folder,) = base.iterdir()
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert token.parent == folder
        assert len(token.read_text()) == 64
        assert ray.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert ray.environment["RAY_AUTH_MODE"] == "token"
        assert ray.options["address"] == "local"
        assert ray.options["_temp_dir"].startswith(f"{folder}/")
    assert ray.is_shut_down
    assert list(base.iterdir()) == []
    assert {name: os.environ.get(name) for name in before} == before
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


@pytest.mark.usefixtures("base")
def test_what_the_user_set_is_left_except_for_loopback(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "mine").write_text("0123")
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "mine"),
        "RAY_gcs_server_port_wait_time_s": "7",
    }
    for name, value in {**own, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}.items():
        monkeypatch.setenv(name, value)
    ray = fake()
    with cluster_session(None):
        assert own.items() <= ray.environment.items()
        # A worker that stores a unit is still there for the next one, a minute later.
        assert int(ray.environment["RAY_idle_worker_killing_time_threshold_ms"]) > 60_000
        assert ray.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"


def test_token_mode_without_a_token_gives_a_private_cluster_one_of_its_own(
    base: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray = fake()
    with cluster_session(None):
        (folder,) = base.iterdir()
        assert ray.environment["RAY_AUTH_TOKEN_PATH"].startswith(f"{folder}/")


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_token_file_that_is_none_is_a_sentence_before_ray_is_started(
    base: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    ray = fake()
    reason = "No such file or directory" if content is None else "it is empty"
    with (
        pytest.raises(ClusterError, match=rf"{path}' cannot be used \({reason}\)") as refused,
        cluster_session(None),
    ):
        pass
    assert refused.value.exit_code == BAD_INPUT
    assert ray.options == {}
    assert list(base.iterdir()) == []


@pytest.mark.usefixtures("base")
def test_a_temporary_folder_that_is_passed_over_is_named_with_the_one_that_is_used(
    fake: Any, monkeypatch: pytest.MonkeyPatch, base: Path
):
    long = base / ("slurm" * 10)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    fake()
    said: list[str] = []
    with cluster_session(None, note=said.append):
        (sentence,) = said
        (folder,) = (path for path in base.iterdir() if path != long)
    assert sentence.startswith(f"Ray's temporary files are in {folder} ({long}: longer than")


@pytest.mark.usefixtures("base")
def test_a_cluster_at_an_address_is_not_held_to_loopback(
    fake: Any, monkeypatch: pytest.MonkeyPatch
):
    answered(monkeypatch)
    ray = fake(host="192.0.2.7")
    with cluster_session("head:6379"):
        pass
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in ray.environment
    assert "RAY_AUTH_MODE" not in ray.environment
    assert "_temp_dir" not in ray.options


def test_ray_that_would_listen_on_the_network_is_not_started(base: Path, fake: Any):
    ray = fake(host="192.0.2.7")
    with pytest.raises(ClusterError, match="imported before"), cluster_session(None):
        pass
    assert ray.options == {}
    assert list(base.iterdir()) == []


def test_an_interrupted_start_leaves_nothing(base: Path, fake: Any):
    ray = fake()
    ray.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), cluster_session(None):
        pass
    assert list(base.iterdir()) == []


def test_ray_that_runs_already_is_used_and_left_running(
    base: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    ray = fake()
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with cluster_session(None) as cluster:
        assert cluster.cpus == 3.0
    assert not ray.is_shut_down
    assert list(base.iterdir()) == []


def test_nothing_imports_ray_before_the_session_sets_its_environment():
    script = """
import sys
import jobs.cli, pipelines.run
from jobs.commands import catalog, compose, demo, submit
sys.exit("ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_of_private_folders_hold_the_user():
    assert folder_prefix() == f"clora-{os.getuid()}-"
