"""A sweep on two nodes: submitted, watched by a real Prometheus, stopped, submitted again, done."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.head_node import HeadNode, packages, second_node
from e2e.kit import REPOSITORY, RUN_TIMEOUT_S, committed, manifest, write_job
from free_ports import free_ports
from prometheus_kit import dashboard_expressions, needs_prometheus, prometheus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(4 * RUN_TIMEOUT_S), needs_prometheus]

NUM_SEEDS = 24
STEPS = {"num_steps": 8, "guide_until_step": 4, "refine_steps": [0], "num_refine_updates": 1}
NAME = "sweep"

ONE_ACTOR_A_NODE = {"rows_per_unit": 2, "actors": 2, "cpus_per_actor": 1.5}
"""Each node has two processors, so that neither has room for both."""

BOTH_NODES_SAMPLE = "count(count by (instance) (ray_clora_actor_rows_total)) == 2"


def sweep() -> list[dict[str, object]]:
    """Two methods over the same seeds."""
    return [
        {**row, "row_id": f"{row['row_id']}-{method}", "method": method}
        for row in manifest(NUM_SEEDS)
        for method in ("clora", "merge")
    ]


def test_a_sweep_is_watched_stopped_and_finished(
    tmp_path: Path, head: HeadNode, environment: dict[str, str]
):
    job = write_job(
        tmp_path,
        sweep(),
        output=str(tmp_path / "out"),
        sampler=STEPS,
        scoring={"references": 2},
        resources=ONE_ACTOR_A_NODE,
    )
    (port,) = free_ports(1)
    options = ["--address", head.dashboard, "--working-dir", packages(tmp_path / "code")]
    options += ["--id", NAME, "--metrics-port", str(port), "--log", "json"]
    command = [sys.executable, "-m", "jobs", "submit", job, *options]
    with (
        second_node(head, environment) as second,
        prometheus(
            tmp_path, {"clora": [f"127.0.0.1:{port}"], "ray": [head.metrics, second]}
        ) as server,
    ):
        first = _submitted(command, tmp_path / "first", environment)
        while not server.wait_for("clora_rows_total", deadline_s=2.0):
            assert first.poll() is None, (tmp_path / "first.log").read_text()
        _stop(head, environment)
        assert first.wait(RUN_TIMEOUT_S) == 130
        assert '"event": "unit"' in (tmp_path / "first.log").read_text()
        num_before = len(committed(tmp_path / "out"))
        assert 0 < num_before < 2 * NUM_SEEDS

        second_try = _submitted(command, tmp_path / "second", environment)
        silent = {**dashboard_expressions(), "both nodes": BOTH_NODES_SAMPLE}
        while second_try.poll() is None and silent:
            seen = [panel for panel, told in silent.items() if server.wait_for(told, 0.0)]
            silent = {panel: told for panel, told in silent.items() if panel not in seen}
            time.sleep(0.5)
        assert not silent
        assert second_try.wait(RUN_TIMEOUT_S) == 0
    told = (tmp_path / "second.log").read_text()
    assert f"{NAME}-try2 submitted" in told
    keys = committed(tmp_path / "out")["key"].to_pylist()
    assert len(keys) == len(set(keys)) == 2 * NUM_SEEDS
    account = re.search(r"^(\d+) made, 0 failed, (\d+) skipped", told, re.MULTILINE)
    assert account is not None
    made, skipped = map(int, account.groups())
    assert made + skipped == 2 * NUM_SEEDS
    # Workers of the stopped run may have committed a unit after it was counted.
    assert skipped >= num_before


def _submitted(
    command: list[object], name: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with name.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=log,
        )


def _stop(head: HeadNode, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "stop", NAME]
    done = subprocess.run(
        [*command, "--address", head.dashboard], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
