"""What becomes of rows when something dies or is broken on the way."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from e2e.head_node import HeadNode
from e2e.kit import REPOSITORY, RUN_TIMEOUT_S, Run, committed, concepts, manifest, write_job

import emoji_world

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * RUN_TIMEOUT_S)]

DEADLINE_S = 400.0


def test_a_killed_run_goes_on_where_it_was_killed(
    tmp_path: Path, clora: Run, environment: dict[str, str]
):
    job = write_job(tmp_path, manifest(16))
    output = tmp_path / "out"
    command = [sys.executable, "-m", "jobs", "compose", str(job)]
    driver = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + DEADLINE_S
    while not list(output.glob("rows/unit-*")) and time.monotonic() < deadline:
        assert driver.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("rows/unit-*")}
    assert before
    assert len(before) < 8

    done = clora("compose", job)
    assert done.returncode == 0, done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("rows/unit-*")}
    assert before.items() <= after.items()
    keys = committed(output)["key"].to_pylist()
    assert len(keys) == len(set(keys)) == 16
    told = re.fullmatch(
        r"(\d+) made, 0 failed, (\d+) skipped \(already made\)", done.stdout.splitlines()[-1]
    )
    assert told is not None
    made, skipped = map(int, told.groups())
    assert made + skipped == 16
    # A worker of the killed run may have committed another unit before it noticed.
    assert skipped >= 2 * len(before)


def test_a_truncated_lora_fails_its_rows_alone_and_the_error_names_the_file(
    tmp_path: Path, clora: Run, head: HeadNode
):
    loras = tmp_path / "loras"
    shutil.copytree(emoji_world.lora_catalog().parent, loras)
    one, other = concepts()
    file = loras / other["uri"]
    file.write_bytes(file.read_bytes()[:-1000])
    rows = [*manifest(3, loras=[one["name"]], method="single", prompt=f"a {one['subject']}")]
    rows.append(manifest(4)[3])
    job = write_job(tmp_path, rows, catalog="loras/loras.yaml")

    done = clora("compose", job, "--address", head.gcs)
    assert done.returncode == 1, done.stderr
    output = tmp_path / "out"
    assert f"3 made, 1 failed (see {output}/errors), 0 skipped" in done.stdout
    assert sorted(committed(output)["row_id"].to_pylist()) == ["r0", "r1", "r2"]
    (error,) = pq.read_table(output / "errors").to_pylist()
    assert error["row_id"] == "r3"
    assert error["stage"] == "lora"
    assert str(file) in error["message"]

    again = clora("status", output)
    assert again.returncode == 1
    assert str(file) in again.stdout
