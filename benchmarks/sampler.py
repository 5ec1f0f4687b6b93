"""CLoRA on the embedded world: our sampler, the sequential reference and plain diffusers.

    python -m benchmarks.sampler [--repeats 3] [--out docs/benchmarks/sampler.md]

Everything is measured in one process, interleaved, and told as ratios with their spread: wall time
per image against the sequential reference (one image, one variant at a time, adapters switched by
peft, attention written out everywhere, joint graph), and against diffusers' own pipeline making one
plain image. Peak memory is measured in processes of its own.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from oracles.peft_pipeline import load_pipeline
from oracles.sequential import sequential_sample
from torch.utils.flop_counter import FlopCounterMode

import emoji_world
from benchmarks.embedded import composed_row, concepts
from clora_core.composer import Composer
from clora_core.diffusion.model import load_base_model
from clora_core.lora.cache import LoraCache
from clora_core.recipe.config import sampler_preset
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage

CONFIG = sampler_preset("emoji")
GIB = 2**30


def rows(count: int, num_concepts: int) -> list[Row]:
    """Return ``count`` rows with equal LoRAs and different seeds."""
    return [composed_row(concepts()[:num_concepts], CONFIG, seed=seed) for seed in range(count)]


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(repeats: int) -> list[str]:
    """Return the lines of the table of times."""
    folder = emoji_world.base_model_dir()
    model = load_base_model(folder)
    composer = Composer(model, LoraCache(GIB))
    pipeline = load_pipeline(folder)

    def plain() -> None:
        pipeline(
            "a cat and a dog",
            num_inference_steps=CONFIG.num_steps,
            guidance_scale=CONFIG.guidance_scale,
            generator=torch.Generator().manual_seed(0),
        )

    lines = [
        "| K | batch | ours, s an image | sequential, s | sequential / ours | ours / plain |",
        "|---|---|---|---|---|---|",
    ]
    plain()
    for num_concepts in (2, 3):
        for count in (1, 4, 8):
            batch = rows(count, num_concepts)
            check(composer, batch)
            times: list[tuple[float, float, float]] = []
            for _ in range(repeats):
                ours = seconds(lambda batch=batch: composer.compose(batch)) / count
                times.append(
                    (
                        ours,
                        seconds(lambda b=batch: sequential_sample(pipeline, b[0])),
                        seconds(plain),
                    )
                )
            line = (
                f"| {num_concepts} | {count} | {median(t[0] for t in times):.2f} "
                f"| {median(t[1] for t in times):.2f} | {spread([t[1] / t[0] for t in times])} "
                f"| {spread([t[0] / t[2] for t in times])} |"
            )
            print(line, flush=True)
            lines.append(line)
    return lines


def check(composer: Composer, batch: Sequence[Row]) -> None:
    """Warm up, and stop if a row cannot be made."""
    for result in composer.compose(batch):
        if not isinstance(result, ComposedImage):
            raise SystemExit(f"benchmark row failed: {result.message}")


def spread(ratios: Sequence[float]) -> str:
    """Return the median ratio and its extremes."""
    return f"{median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def flops() -> list[str]:
    """Return the lines of the table of FLOPs of one image, counted while both make it."""
    folder = emoji_world.base_model_dir()
    composer = Composer(load_base_model(folder), LoraCache(GIB))
    pipeline = load_pipeline(folder)
    lines = ["| K | ours, GFLOP | sequential, GFLOP | sequential / ours |", "|---|---|---|---|"]
    for num_concepts in (2, 3):
        [row] = rows(1, num_concepts)
        with FlopCounterMode(display=False) as ours:
            check(composer, [row])
        with FlopCounterMode(display=False) as theirs:
            sequential_sample(pipeline, row)
        counts = [counter.get_total_flops() / 1e9 for counter in (ours, theirs)]
        cells = " | ".join(f"{count:.0f}" for count in counts)
        lines.append(f"| {num_concepts} | {cells} | {counts[1] / counts[0]:.2f}x |")
        print(lines[-1], flush=True)
    return lines


def peak_memory() -> list[str]:
    """Return the lines of the table of peak memory, each case in a process of its own."""
    lines = ["| gradient | K = 2 | K = 4 | K = 8 |", "|---|---|---|---|"]
    for name, lanes in (("joint", 0), ("two-pass, one lane at a time", 1)):
        cells: list[str] = []
        for num_concepts in (2, 4, 8):
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.sampler", "--memory", f"{num_concepts},{lanes}"],
                check=True,
                capture_output=True,
                text=True,
            )
            cells.append(f"{json.loads(found.stdout.splitlines()[-1]):.0f} MiB")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def memory_case(num_concepts: int, lanes: int) -> None:
    """Print how much the process grows beyond loading while it makes one image, in MiB."""
    model = load_base_model(emoji_world.base_model_dir())
    limit = {"max_lanes": lanes} if lanes else {"graph_budget_bytes": 2**50}
    composer = Composer(model, LoraCache(GIB), **limit)
    [row] = rows(1, num_concepts)
    short = {"num_steps": 2, "guide_until_step": 2, "refine_steps": (), "num_refine_updates": 0}
    row = replace(row, sampler=CONFIG.model_copy(update=short))
    base = replace(row, method="base")
    composer.compose([base])
    before = peak_bytes()
    check(composer, [row])
    print((peak_bytes() - before) / 2**20)


def peak_bytes() -> int:
    """Return the largest resident memory of this process; ``ru_maxrss`` would keep its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Measure and print; write the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if options.memory:
        num_concepts, lanes = map(int, options.memory.split(","))
        memory_case(num_concepts, lanes)
        return
    times = compare(options.repeats)
    counted = flops()
    memory = peak_memory()
    if options.out:
        about = (
            f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, {options.repeats} interleaved repeats; "
            f"median (smallest-largest)."
        )
        parts = [
            "# The sampler on the embedded world",
            "",
            "Made by `python -m benchmarks.sampler`.",
            about,
            "",
            *times,
            "",
            "FLOPs of one image, both counted in this run. What is left of the ratio of times is "
            "what batching and hooks save over switching adapters one variant at a time:",
            "",
            *counted,
            "",
            "Growth of the process while one image is made, beyond the loaded model:",
            "",
            *memory,
            "",
        ]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
