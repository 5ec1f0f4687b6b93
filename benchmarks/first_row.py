"""How long somebody waits for a first image: ``clora compose`` against a plain script."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import yaml

NUM_ROWS = 4
PROMPT = "a <l1> cat and a <l3> dog on the beach"

_SCRIPT = """
import emoji_world
from benchmarks.embedded import composed_row, concepts
from clora_core.composer import Composer
from clora_core.recipe.config import sampler_preset
from clora_core.diffusion.model import load_base_model
from clora_core.lora.cache import LoraCache
composer = Composer(load_base_model(emoji_world.base_model_dir()), LoraCache(2**30))
rows = [composed_row(concepts()[:2], sampler_preset("emoji"), seed=seed) for seed in range({rows})]
composer.compose(rows)
"""


def first_row_lines(repeats: int) -> Iterator[str]:
    """Yield the table: a unit of four rows of CLoRA on the embedded world, from a cold start."""
    yield "| | s |"
    yield "|---|--:|"
    scripts, engines = [], []
    for _ in range(repeats):
        scripts.append(_script_s())
        engines.append(_compose_s())
    yield f"| a script: load the model, make {NUM_ROWS} rows in one batch | {median(scripts):.1f} |"
    yield f"| `clora compose`: the same rows committed as the first unit | {median(engines):.1f} |"
    yield f"| ratio | {median(engines) / median(scripts):.2f} |"


def _script_s() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", _SCRIPT.format(rows=NUM_ROWS)], check=True, env=_quiet())
    return time.perf_counter() - start


def _compose_s() -> float:
    """Return the seconds from the start of the command until a unit is committed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            {"prompt": PROMPT, "loras": ["violet-cat", "husky-dog"], "seed": seed}
            for seed in range(NUM_ROWS)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = {"manifest": "rows.jsonl", "output": "out", "scoring": {"references": 0}}
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        start = time.perf_counter()
        command = [sys.executable, "-m", "jobs", "compose", str(folder / "job.yaml")]
        process = subprocess.Popen(command, env=_quiet(), stdout=subprocess.DEVNULL)
        while process.poll() is None and not list((folder / "out").glob("rows/*.parquet")):
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.wait() != 0:
            raise RuntimeError(f"the job ended with {process.returncode}")
        return seconds


def _quiet() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
