"""Drivers with an environment of their own, and the table of what the faults came to."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.kit import TESTS, Drivers, Record, Settings, Sum
from faults.table import Line, tables_of


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}",
    }


@pytest.fixture
def drivers(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Drivers]:
    """Make drivers on a fresh output: on disk, or where ``out`` says."""

    def make(**changes: Any) -> Drivers:
        own = changes.pop("environment", {})
        values = {
            "out": str(tmp_path / "out"),
            "log": str(tmp_path / "calls"),
            "sprung": str(tmp_path / "sprung"),
        }
        store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return Drivers(Settings(**(values | changes)), tmp_path, {**environment, **store, **own})

    return make


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Check what every fault must come to, and keep it for the table."""

    def check(fault: str, ran: Drivers, total: Sum, bound: int) -> None:
        line = Line(
            fault=fault,
            is_remote="://" in ran.settings.out,
            runs=ran.num_runs,
            total=total,
            bound=bound,
        )
        tables = tables_of(request.config)
        tables.lines.append(line)
        tables.write()
        assert total.lost == 0, total
        assert total.doubled == 0, total
        assert total.problems == (), total
        assert total.made + total.failed == total.num_rows, total
        assert total.waste <= bound, total

    return check
