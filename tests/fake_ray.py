"""A Ray that starts nothing, for tests of how it is asked to start, and fixtures around it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class FakeRay(ModuleType):
    """Stands for Ray: raises what a test asks for when it is to start, and notes what it finds."""

    def __init__(self, fault: Exception | None, host: str) -> None:
        super().__init__("ray")
        self.fault = fault
        self.options: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.util = ModuleType("ray.util")
        self.util.__dict__["get_node_ip_address"] = lambda: host
        self.is_shut_down = False

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.options = options
        self.environment = dict(os.environ)
        if "_temp_dir" in options:
            Path(options["_temp_dir"]).mkdir()
        if self.fault is not None:
            os.write(2, b"C++ said \x1b[31mthis\n")
            raise self.fault

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for private clusters, and an environment that names no cluster."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(fault: Exception | None = None, host: str = "127.0.0.1") -> FakeRay:
        ray = FakeRay(fault, host)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setitem(sys.modules, "ray.util", ray.util)
        return ray

    return put
