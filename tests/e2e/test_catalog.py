"""A catalog as a schedule renders it: what changed is made, no more."""

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from e2e.head_node import HeadNode
from e2e.kit import RUN_TIMEOUT_S, Run, committed, concepts

import emoji_world
from pipelines.outputs.editions import edition_name

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3 * RUN_TIMEOUT_S)]

NUM_ITEMS = 60
RARE_EVERY = 12
NUM_NEW_PROMPTS = 6
STEPS = {"num_steps": 2, "guide_until_step": 1, "refine_steps": [0], "num_refine_updates": 1}


def items() -> list[dict[str, Any]]:
    """Return items, every twelfth of which has the one LoRA and the rest the other."""
    rare, usual = concepts()
    found: list[dict[str, Any]] = []
    for number in range(NUM_ITEMS):
        lora = usual if number % RARE_EVERY else rare
        words = {"subject": lora["subject"], "place": f"place {number}"}
        found.append({"item": f"i{number}", "loras": [lora["name"]], **words})
    return found


def write_spec(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = {
        "items": "items.jsonl",
        "scenes": [{"scene": "studio", "prompt": "a {subject} at {place}", "method": "single"}],
        "loras": "loras/loras.yaml",
        "output": "out",
        "sampler": STEPS,
        "scoring": {"references": 0},
        "resources": {"rows_per_unit": 20},
    }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def write_loras(folder: Path) -> tuple[Path, Path]:
    """Copy the embedded LoRAs, whose files may be exchanged here; return those of the items."""
    shutil.copytree(emoji_world.lora_catalog().parent, folder / "loras")
    catalog = folder / "loras" / emoji_world.lora_catalog().name
    entries = yaml.safe_load(catalog.read_text())["loras"]
    for entry in entries:
        entry.pop("sha256", None)
    (folder / "loras/loras.yaml").write_text(yaml.safe_dump({"loras": entries}))
    rare, usual = (folder / "loras" / lora["uri"] for lora in concepts())
    return rare, usual


def edition(output: Path, number: int) -> dict[str, dict[str, Any]]:
    table = pq.read_table(output / edition_name(number))
    return {row["row_id"]: row for row in table.to_pylist()}


class Readers:
    """Read ``latest.json`` again and again, and remember the editions that it named, in order."""

    def __init__(self, path: Path) -> None:
        self.seen: list[int] = []
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._is_over.wait(0.01):
            number = json.loads(self._path.read_text())["number"]
            if self.seen[-1:] != [number]:
                self.seen.append(number)


def test_of_many_items_the_changed_ones_are_made_and_latest_flips_once(
    tmp_path: Path, clora: Run, head: HeadNode
):
    rare, usual = write_loras(tmp_path)
    rows, output = items(), tmp_path / "out"
    first = clora("catalog", write_spec(tmp_path, rows), "--address", head.gcs)
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{NUM_ITEMS} made, 0 failed, 0 skipped" in first.stdout
    before = edition(output, 1)
    assert len(before) == NUM_ITEMS

    # One LoRA's file is another, and ten prompts of items without it; this is what is affected.
    shutil.copy(usual, rare)
    for row in [row for row in rows if row["loras"] == [concepts()[1]["name"]]][:NUM_NEW_PROMPTS]:
        row["place"] = f"new {row['place']}"
    affected = {
        f"{new['item']}/studio/plain/0"
        for new, old in zip(rows, items(), strict=True)
        if new != old or new["loras"] == [concepts()[0]["name"]]
    }
    assert len(affected) == NUM_NEW_PROMPTS + NUM_ITEMS // RARE_EVERY
    spec = write_spec(tmp_path, rows)
    with Readers(output / "latest.json") as readers:
        second = clora("catalog", spec, "--address", head.gcs)
    assert second.returncode == 0, second.stdout + second.stderr
    kept = NUM_ITEMS - len(affected)
    assert f"{len(affected)} made, 0 failed, {kept} skipped (already made)" in second.stdout
    assert f"edition 2 is the latest: 0 added, {len(affected)} changed, 0 removed" in second.stdout
    assert readers.seen == [1, 2]
    after = edition(output, 2)
    assert {name for name in after if after[name]["key"] != before[name]["key"]} == affected
    assert len(committed(output)) == NUM_ITEMS + len(affected)

    # The former edition reads as it did, every image of it too.
    assert edition(output, 1) == before
    for row in [*before.values(), *after.values()]:
        content = (output / row["image"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["image_sha256"]
