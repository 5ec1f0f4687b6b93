"""The product as its users run it: processes, job files, a folder of output.

Every process gets its own Ray token file and two threads; nothing here shares the session's Ray.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.head_node import HeadNode, head_node
from e2e.kit import REPOSITORY, RUN_TIMEOUT_S, Run


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user's shell, with a private Ray token."""
    token = tmp_path_factory.mktemp("ray-auth") / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        # As in a shell with the virtual environment switched on: jobs run `python`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def clora(environment: dict[str, str]) -> Run:
    """Run ``clora`` to its end and return what it said."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *map(str, arguments)],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )

    return run


@pytest.fixture(scope="session")
def head(environment: dict[str, str]) -> Iterator[HeadNode]:
    """One head node for all tests that need a cluster."""
    with head_node(environment) as node:
        yield node
