"""What end-to-end tests share: jobs on the embedded world, and reading back what came out."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file, save_file

import emoji_world

REPOSITORY = Path(__file__).parents[2]

# Few steps: these tests ask what becomes of rows, not how pictures look.
QUICK = {"num_steps": 6, "guide_until_step": 3, "refine_steps": [0], "num_refine_updates": 1}

RUN_TIMEOUT_S = 600
"""Of one command: it takes well under a minute, unless others keep the processors busy."""

Run = Callable[..., subprocess.CompletedProcess[str]]


def concepts() -> list[dict[str, Any]]:
    """Return the first two concept LoRAs of the embedded catalog."""
    entries = yaml.safe_load(emoji_world.lora_catalog().read_text())["loras"]
    return [entry for entry in entries if entry.get("kind", "concept") == "concept"][:2]


def manifest(num_rows: int, **changes: Any) -> list[dict[str, Any]]:
    """Return rows that compose both, with one seed each."""
    one, other = concepts()
    return [
        {
            "row_id": f"r{seed}",
            "prompt": f"a {one['subject']} and a {other['subject']}",
            "loras": [one["name"], other["name"]],
            "seed": seed,
            "method": "merge",
        }
        | changes
        for seed in range(num_rows)
    ]


def write_job(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    catalog: str = "emoji-world",
    **settings: Any,
) -> Path:
    """Write a job on the embedded world into ``folder``; return the job file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "rows.parquet")
    values = {
        "manifest": "rows.parquet",
        "output": "out",
        "base_model": "emoji-world",
        "loras": catalog,
        "sampler": QUICK,
        "scoring": {"references": 0},
        "resources": {"rows_per_unit": 2},
    } | settings
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def other_world(folder: Path, *, seed: int = 0) -> Path:
    """Write the embedded base model with other UNet weights, which LoRAs fit as they do its own."""
    shutil.copytree(emoji_world.base_model_dir(), folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    noise = torch.Generator().manual_seed(seed)
    weights = {
        name: weight * (1 + 0.1 * torch.randn(weight.shape, generator=noise))
        for name, weight in load_file(file).items()
    }
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file)
    return folder


def committed(output: Path) -> pa.Table:
    """Return all committed rows."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(output.glob("rows/unit-*"))])
