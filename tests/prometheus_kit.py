"""Debian's Prometheus in tests: a real server that scrapes what a test names.

``apt-get install prometheus`` has both programs; tests skip, and say so, where they are not.
"""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_kit import ROOT
from free_ports import free_ports

ALERTS = ROOT / "cluster/prometheus/alerts.yaml"
DASHBOARD = ROOT / "cluster/grafana/clora.json"
RATE_INTERVAL = "1m"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed; Debian's package `prometheus` has it",
)


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(  # noqa: S310 - our own server
            f"{self._url}{path}?{query}", timeout=10
        ) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an expression has now."""
        return self.get("/api/v1/query", query=expression)["result"]

    def wait_for(self, expression: str, deadline_s: float = 60.0) -> list[dict[str, Any]]:
        """Return the samples as soon as there are any that are numbers; none if not in time."""
        end = time.monotonic() + deadline_s
        while True:
            found = [one for one in self.query(expression) if one["value"][1] != "NaN"]
            if found or time.monotonic() > end:
                return found
            time.sleep(0.5)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, Sequence[str]]) -> Iterator[Prometheus]:
    """Run a server with our rules, which scrapes every target of each job, each second."""
    config = yaml.safe_load((ROOT / "cluster/prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    for scrape in config["scrape_configs"]:
        scrape["static_configs"] = [{"targets": list(targets[scrape["job_name"]])}]
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [
        "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        _wait_until_ready(running, server, folder / "log")
        yield running
    finally:
        server.terminate()
        server.wait(20)


def _wait_until_ready(running: Prometheus, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            running.query("vector(1)")
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        else:
            return


def dashboard_expressions() -> dict[str, str]:
    """Return the dashboard's expressions by panel, Grafana's variable filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace(
            "$__rate_interval", RATE_INTERVAL
        )
        for panel in panels
        for target in panel["targets"]
    }


def alert_rules() -> list[dict[str, Any]]:
    """Return our alert rules."""
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
