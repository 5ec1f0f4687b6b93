"""The real command when its store breaks: exit code, sentence, and what the next one makes.

``tests/jobs/test_exit_codes.py`` breaks it at every write, within a process of the tests.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.kit import REPOSITORY, RUN_TIMEOUT_S, Run, manifest, write_job
from fault_proxy import FaultPlan, fault_proxy
from s3_kit import S3Server

from pipelines.ledger.ledger import read_ledger
from pipelines.storage.storage import open_storage
from pipelines.upkeep.verify import verify_units

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

NUM_ROWS = 8

PHASES = {
    "before the claim": ("GET", "leases"),
    "the claim": ("PUT", "leases"),
    "the plan": ("PUT", "plans"),
    "the first image": ("PUT", "images"),
    "the first commit": ("PUT", "rows"),
    "the end": ("PUT", "README.md"),
}
"""Requests that the store refuses from some moment on, by what the run is at."""


def test_a_disk_that_breaks_in_a_run_ends_it_with_1_and_the_same_command_completes_it(
    tmp_path: Path, environment: dict[str, str], clora: Run
):
    job = write_job(tmp_path, manifest(NUM_ROWS), resources={"rows_per_unit": 2})
    out = tmp_path / "out"
    process = composing(job, environment, out)
    # As a share that goes away: what was a folder is none.
    (out / "rows").rename(tmp_path / "rows")
    (out / "rows").write_text("in the way")
    _, said = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert f"{out}/rows" in said
    assert "cannot be" in said
    (out / "rows").unlink()
    (tmp_path / "rows").rename(out / "rows")
    done = clora("compose", job)
    assert done.returncode == 0, done.stderr
    assert_whole(str(out))
    assert clora("status", out).returncode == 0


def test_an_output_that_is_moved_away_in_a_run_ends_it_with_1_and_no_second_one_begins(
    tmp_path: Path, environment: dict[str, str], clora: Run
):
    job = write_job(tmp_path, manifest(NUM_ROWS), resources={"rows_per_unit": 1})
    out = tmp_path / "out"
    process = composing(job, environment, out)
    out.rename(tmp_path / "elsewhere")
    _, said = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 1, said
    assert "Traceback" not in said, said
    assert f"{out} is gone: it was moved or deleted" in said
    assert not out.exists()
    (tmp_path / "elsewhere").rename(out)
    done = clora("compose", job)
    assert done.returncode == 0, done.stderr
    assert_whole(str(out))


@pytest.mark.parametrize("phase", PHASES)
def test_a_store_that_goes_away_at_a_phase_ends_with_1_and_the_same_command_completes_it(
    tmp_path: Path,
    environment: dict[str, str],
    s3_server: S3Server,
    s3_uri: str,
    phase: str,
):
    method, part = PHASES[phase]
    job = write_job(
        tmp_path,
        manifest(NUM_ROWS),
        output=s3_uri,
        resources={"rows_per_unit": 2, "store_retry_s": 1.0},
    )
    with fault_proxy(s3_server.port) as proxy:
        store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        there = {**environment, **store, "AWS_ENDPOINT_URL": proxy.endpoint}

        def compose() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "jobs", "compose", str(job)],
                cwd=REPOSITORY,
                env=there,
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
            )

        proxy.plan = FaultPlan(fault="error-500", method=method, path_part=part)
        broken = compose()
        assert broken.returncode == 1, broken.stderr
        assert "Traceback" not in broken.stderr, broken.stderr
        assert "500 Internal Server Error: InternalError; tried" in broken.stderr
        assert "resources.store_retry_s in the job file sets" in broken.stderr
        proxy.plan = FaultPlan()
        done = compose()
        assert done.returncode == 0, done.stderr
    assert_whole(s3_uri)


def composing(job: Path, environment: dict[str, str], out: Path) -> subprocess.Popen[str]:
    """Start ``clora compose``; return when a unit is committed."""
    command = [sys.executable, "-m", "jobs", "compose", str(job)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not any(out.glob("rows/unit-*")):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def assert_whole(output: str) -> None:
    """Check that every row is made, once, and that each has its image."""
    storage = open_storage(output)
    ledger = read_ledger(storage)
    assert (len(ledger.made), ledger.num_doubled) == (NUM_ROWS, 0)
    assert [problem for check in verify_units(storage) for problem in check.problems] == []


def test_validate_finds_an_output_that_cannot_be_written_and_leaves_nothing(
    tmp_path: Path, clora: Run
):
    job = write_job(tmp_path, manifest(1), output=str(tmp_path / "rows.parquet" / "out"))
    before = sorted(tmp_path.rglob("*"))
    for command in ("validate", "plan", "compose"):
        done = clora(command, job)
        assert done.returncode == 2, done.stderr
        assert "a part of the path is a file" in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
