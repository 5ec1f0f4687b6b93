"""`clora submit` to a real head node: once, with its log and the exit code of the run there."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from e2e.head_node import HeadNode, packages
from e2e.kit import QUICK, RUN_TIMEOUT_S, Run, committed, concepts, manifest, write_job

import emoji_world

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3 * RUN_TIMEOUT_S)]


def test_a_job_runs_once_however_often_it_is_submitted(tmp_path: Path, clora: Run, head: HeadNode):
    code = packages(tmp_path / "code")
    job = write_job(tmp_path, manifest(2), output=str(tmp_path / "out"))
    command = ["submit", job, "--address", head.dashboard, "--working-dir", code]
    done = clora(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images 2/2" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 made, 0 failed, 0 skipped"
    assert "sent along" in done.stderr

    again = clora(*command)
    assert again.returncode == 0, again.stderr
    assert "is done already; nothing was submitted" in again.stderr
    assert again.stdout == done.stdout
    assert len(list((tmp_path / "out/runs").iterdir())) == 1
    assert len(committed(tmp_path / "out")) == 2


def test_a_job_with_a_failed_row_ends_with_1_and_is_tried_again_under_a_number(
    tmp_path: Path, clora: Run, head: HeadNode
):
    code = packages(tmp_path / "code")
    loras = tmp_path / "loras"
    shutil.copytree(emoji_world.lora_catalog().parent, loras)
    file = loras / concepts()[1]["uri"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    output = tmp_path / "out"
    job = write_job(tmp_path, manifest(1), output=str(output), catalog="loras/loras.yaml")
    command = ["submit", job, "--address", head.dashboard, "--working-dir", code, "--id", "mended"]
    failed = clora(*command)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert f"0 made, 1 failed (see {output}/errors)" in failed.stdout
    assert "its rows will fail" in failed.stderr

    file.write_bytes(whole)
    mended = clora(*command)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "mended-try2 submitted" in mended.stderr
    assert "1 made, 0 failed, 0 skipped" in mended.stdout


def test_a_catalog_s_spec_that_is_submitted_twice_is_one_edition(
    tmp_path: Path, clora: Run, head: HeadNode
):
    code = packages(tmp_path / "code")
    output = tmp_path / "out"
    spec = {
        "items": [
            {"item": f"i{n}", "loras": [lora["name"]], "subject": lora["subject"]}
            for n, lora in enumerate(concepts())
        ],
        "scenes": [{"scene": "studio", "prompt": "a {subject}", "method": "single"}],
        "output": str(output),
        "sampler": QUICK,
        "scoring": {"references": 0},
    }
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(spec))
    command = ["submit", path, "--address", head.dashboard, "--working-dir", code]
    done = clora(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edition 1 is the latest: 2 added, 0 changed, 0 removed" in done.stdout
    again = clora(*command)
    assert again.returncode == 0, again.stderr
    assert "is done already; nothing was submitted" in again.stderr

    # A schedule names each night's work anew; then the run itself finds that nothing changed.
    next_night = clora(*command, "--id", "next-night")
    assert next_night.returncode == 0, next_night.stdout + next_night.stderr
    assert "0 made, 0 failed, 2 skipped (already made)" in next_night.stdout
    assert "edition 1 is the latest already; nothing changed" in next_night.stdout
    assert json.loads((output / "latest.json").read_text())["number"] == 1
    assert len(list((output / "editions").iterdir())) == 1
    assert len(committed(output)) == 2
