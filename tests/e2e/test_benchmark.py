"""From a few lines to a page: sweep, compose, table, report and one picture again."""

from pathlib import Path

import pytest
import yaml
from e2e.head_node import HeadNode
from e2e.kit import QUICK, RUN_TIMEOUT_S, Run, committed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2 * RUN_TIMEOUT_S)]


def test_a_sweep_is_composed_reported_and_every_picture_can_be_made_again(
    clora: Run, tmp_path: Path, head: HeadNode
):
    spec = {
        "output": "out",
        "methods": ["clora", "merge", "custom-diffusion"],
        "seeds": [1, 2],
        "prompts": ["{subjects} {background}"],
        "backgrounds": ["on the beach"],
        "compositions": [["violet-cat", "azure-frog"]],
        "sampler": QUICK,
        "scoring": {"references": 2},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(spec))
    out = tmp_path / "out"
    assert clora("sweep", tmp_path / "sweep.yaml").returncode == 0
    composed = clora("compose", out / "job.yaml", "--address", head.gcs)
    assert composed.returncode == 0, composed.stderr
    assert "6 made" in composed.stdout
    again = clora("compose", out / "job.yaml")
    assert "6 skipped (already made)" in again.stdout
    table = clora("table", out)
    assert table.returncode == 0, table.stderr
    assert "all found" in table.stdout  # the judge of the embedded world was asked
    assert "| merge | 2 |" in table.stdout  # the paired differences
    assert clora("report", out).returncode == 0
    assert (out / "report" / "index.html").is_file()
    assert "Interference" in (out / "report" / "index.html").read_text()
    row = committed(out).to_pylist()[0]
    image = out / row["image"]["path"]
    shown = clora("show", image)
    assert f"Seed: {row['seed']}," in shown.stdout
    rendered = clora("render", image, "--out", tmp_path / "again.png")
    assert rendered.returncode == 0, rendered.stdout + rendered.stderr
    assert "the same picture" in rendered.stdout
    exported = clora("export", out, "--webdataset", tmp_path / "shards")
    assert "6 images in 1 shard(s)" in exported.stdout
