"""A cluster that starts while its run is prepared: who ends it, and when it is started again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.session import cluster_session as sessions
from pipelines.session import early_start
from pipelines.session.cluster_session import cluster_session, preparing_session
from pipelines.session.early_start import starting_early

STARTER = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(folder / "token")
assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
print("127.0.0.1:6379", flush=True)
sys.stdin.read()
(folder.parent / "ended").touch()
"""


Started = Callable[[], list[psutil.Process]]


@pytest.fixture
def started() -> Started:
    """What returns the processes that this one has started since the test began."""
    known = set(psutil.Process().children())
    return lambda: [each for each in psutil.Process().children() if each not in known]


def test_the_cluster_that_starts_early_is_the_sessions_and_ends_with_it(
    base: Path, started: Started, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(early_start, "_STARTER", STARTER)
    ray = fake()
    before = dict(os.environ)
    with starting_early():
        (folder,) = base.iterdir()
        with cluster_session(None) as cluster:
            assert cluster.is_private
            assert ray.options["address"] == "127.0.0.1:6379"
            assert "num_cpus" not in ray.options
            assert ray.environment["RAY_AUTH_TOKEN_PATH"] == str(folder / "token")
            assert not (base / "ended").exists()
        assert ray.is_shut_down
        assert [path.name for path in base.iterdir()] == ["ended"]
        assert started() == []
    assert {name: os.environ.get(name) for name in before} == before


def test_a_cluster_that_no_session_wants_is_killed(
    base: Path, started: Started, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(early_start, "_STARTER", STARTER)
    with starting_early():
        assert len(started()) == len(list(base.iterdir())) == 1
    assert started() == list(base.iterdir()) == []


def test_a_second_session_has_a_cluster_of_its_own(
    base: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(early_start, "_STARTER", STARTER)
    ray = fake()
    with starting_early():
        with cluster_session(None):
            pass
        with cluster_session(None):
            assert ray.options["address"] == "local"
    assert [path.name for path in base.iterdir()] == ["ended"]


@pytest.mark.parametrize("starter", ["pass", STARTER], ids=["not started", "not reached"])
def test_a_cluster_that_is_not_there_is_started_again_which_says_why(
    base: Path, started: Started, fake: Any, monkeypatch: pytest.MonkeyPatch, starter: str
):
    monkeypatch.setattr(early_start, "_STARTER", starter)
    ray = fake()
    usual = ray.init

    def init(**options: Any) -> None:
        if options["address"] != "local":
            raise ConnectionError("refused")
        usual(**options)

    monkeypatch.setattr(ray, "init", init)
    with starting_early(), cluster_session(None):
        assert ray.options["address"] == "local"
        assert len(list(base.iterdir())) == 1
    assert started() == list(base.iterdir()) == []


def test_an_interrupt_while_it_is_waited_for_leaves_nothing(
    base: Path, started: Started, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(early_start, "_STARTER", STARTER)
    fake(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), starting_early(), cluster_session(None):
        pass
    assert started() == list(base.iterdir()) == []


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(("address", "begun"), [(None, 1), ("local", 1), ("head:6379", 0)])
def test_only_a_private_cluster_starts_early(
    monkeypatch: pytest.MonkeyPatch, address: str | None, begun: int
):
    entered: list[bool] = []

    @contextmanager
    def starting() -> Generator[None]:
        entered.append(True)
        yield

    monkeypatch.setattr(sessions, "starting_early", starting)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with preparing_session(address):
        assert len(entered) == begun


def test_a_folder_that_cannot_be_had_is_said_when_a_cluster_is_wanted(
    base: Path, started: Started, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_GCS_SERVER_PORT", "none")
    with starting_early():
        assert started() == list(base.iterdir()) == []


def test_a_refused_manifest_leaves_no_cluster(base: Path, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a cat", "loras": ["none"]}))
    (tmp_path / "job.yaml").write_text("{manifest: rows.jsonl, output: out}")
    command = [sys.executable, "-m", "jobs", "compose", str(tmp_path / "job.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "none" in done.stderr
    assert list(base.iterdir()) == []
