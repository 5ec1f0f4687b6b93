"""Fixtures that every test may use: a quiet machine and one Ray cluster for the whole session."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import settings
from s3_kit import BUCKET, S3Server, running_s3

from pipelines.session import cluster_session

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

# A test says what holds, not how fast: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Refuse test modules that import Ray: its cluster's settings are read on import."""
    if "ray" in sys.modules:
        raise pytest.UsageError(
            "a test module imports Ray; import it within the tests that need it"
        )


@pytest.fixture(autouse=True)
def _no_early_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a test runs in this process starts no cluster that it may not want."""
    monkeypatch.setattr(cluster_session, "starting_early", nullcontext)


@pytest.fixture(scope="session")
def ray_token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private token file, so that no test cluster shares the user's own."""
    path = tmp_path_factory.mktemp("ray-auth") / "token"
    path.write_text(secrets.token_hex(16))
    path.chmod(0o600)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    return path


@pytest.fixture(scope="session")
def ray_cluster(ray_token: Path) -> Iterator[None]:  # noqa: ARG001 - set before Ray starts
    """One local Ray for all tests marked ``ray``, as a private one of the product is."""
    from pipelines.session.private_cluster import private_cluster

    with private_cluster(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def engine_cluster(ray_cluster: None) -> Iterator[None]:  # noqa: ARG001 - it must be there
    """The session's Ray; the fakes travel by value, because workers cannot import the tests."""
    import engine_kit
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(engine_kit)
    yield
    cloudpickle.unregister_pickle_by_value(engine_kit)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One real S3 server for all tests that need a store; loopback only."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty place in the store, and an environment that opens it."""
    from manifests.places import locations
    from pipelines.storage import client as store_client

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    clients = (locations._remote, store_client.client)
    for kept in clients:
        kept.cache_clear()
    yield f"s3://{BUCKET}/{secrets.token_hex(6)}"
    for kept in clients:
        kept.cache_clear()
