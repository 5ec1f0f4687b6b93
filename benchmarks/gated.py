"""What a gated image costs beside a plain one, on the embedded world.

    python -m benchmarks.gated [--repeats 3] [--out docs/benchmarks/gated.md]

A batch of eight rows by each method, interleaved in one process: wall time and FLOPs as ratios to
the base model without LoRAs. Then one UNet call with the bank's constant weights and with its gate,
and peak memory by the number of concepts, each case in a process of its own.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

import emoji_world
from benchmarks.embedded import composed_row, concepts
from benchmarks.sampler import check, peak_bytes, seconds, spread
from clora_core.composer import Composer
from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import load_base_model
from clora_core.lora.bank import LoraBank
from clora_core.lora.cache import LoraCache
from clora_core.lora.gate import Gate
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.config import sampler_preset
from clora_core.recipe.row import Region, Row

CONFIG = sampler_preset("emoji")
BATCH = 8
GIB = 2**30
METHODS = ("merge", "merge, regions", "clora-gated-no-update", "clora-gated", "freefuse")


def rows(method: str, num_concepts: int) -> list[Row]:
    """Return a batch of one method; its regions are columns side by side."""
    loras = concepts()[:num_concepts]
    if method == "merge, regions":
        method = "merge"
        edges = [index / num_concepts for index in range(num_concepts + 1)]
        loras = [
            replace(lora, region=Region(box=(left, 0.0, right, 1.0), mode="replace"))
            for lora, left, right in zip(loras, edges[:-1], edges[1:], strict=True)
        ]
    return [composed_row(loras, CONFIG, seed=seed, method=method) for seed in range(BATCH)]


def compare(repeats: int, counts: Sequence[int]) -> list[str]:
    """Return the lines of the table of methods, for each number of concepts."""
    composer = Composer(load_base_model(emoji_world.base_model_dir()), LoraCache(GIB))
    lines = [
        "| K | method | s an image | wall / base | wall / merge | FLOPs / base | FLOPs / merge |",
        "|---|---|---|---|---|---|---|",
    ]
    for num_concepts in counts:
        methods = ["base", *METHODS, *(["clora"] if num_concepts == 2 else [])]
        batches = {method: rows(method, num_concepts) for method in methods}
        flops: dict[str, int] = {}
        for method, batch in batches.items():
            with FlopCounterMode(display=False) as counter:
                check(composer, batch)
            flops[method] = counter.get_total_flops()
        times: dict[str, list[float]] = {method: [] for method in methods}
        for _ in range(repeats):
            for method, batch in batches.items():
                times[method].append(seconds(lambda batch=batch: composer.compose(batch)) / BATCH)
        for method in methods:
            ratios = [
                spread([mine / theirs for mine, theirs in zip(times[method], other, strict=True)])
                for other in (times["base"], times["merge"])
            ]
            line = (
                f"| {num_concepts} | {method} | {median(times[method]):.2f} | {ratios[0]} "
                f"| {ratios[1]} | {flops[method] / flops['base']:.2f}x "
                f"| {flops[method] / flops['merge']:.2f}x |"
            )
            print(line, flush=True)
            lines.append(line)
    return lines


def bank(repeats: int) -> list[str]:
    """Return the lines of the table of one UNet call: bare, constant weights, gate."""
    model = load_base_model(emoji_world.base_model_dir())
    targets = lora_targets(model.components)
    lanes = 2 * BATCH
    latents = torch.randn(lanes, model.latent_channels, *model.latent_shape(64, 64))
    width = model.unet.config["cross_attention_dim"]
    conditions = Conditions(torch.randn(lanes, 24, width))
    t = torch.tensor(500)
    lines = [
        "| LoRAs | bare UNet, ms | constant weights / bare | gate / bare | gate / constant |",
        "|---|---|---|---|---|",
    ]
    for count in (2, 4, 8):
        packed = [read_lora(lora.uri, targets) for lora in concepts()[:count]]
        loras = LoraBank(model.unet, packed, "unet")
        weights = torch.rand(lanes, count)
        parts = torch.softmax(torch.randn(lanes, count + 1, *latents.shape[2:]), dim=1)
        by_part = torch.cat(
            [torch.zeros(lanes, 1, count), torch.eye(count).expand(lanes, -1, -1)], 1
        )

        def bare() -> None:
            model.run_unet(latents, t, conditions)

        def with_bank(given: torch.Tensor | Gate, loras: LoraBank = loras) -> None:
            with loras.attached():
                loras.use(given)
                model.run_unet(latents, t, conditions)

        def constant(weights: torch.Tensor = weights) -> None:
            with_bank(weights)

        def gated(parts: torch.Tensor = parts, by_part: torch.Tensor = by_part) -> None:
            with_bank(Gate(parts, by_part))

        with torch.no_grad():
            bare(), constant(), gated()
            times = [(seconds(bare), seconds(constant), seconds(gated)) for _ in range(5 * repeats)]
        ratios = [
            spread([each[mine] / each[other] for each in times])
            for mine, other in ((1, 0), (2, 0), (2, 1))
        ]
        milliseconds = 1000 * median(each[0] for each in times)
        line = f"| {count} | {milliseconds:.0f} | {' | '.join(ratios)} |"
        print(line, flush=True)
        lines.append(line)
    return lines


def peak_memory() -> list[str]:
    """Return the lines of the table of peak memory."""
    lines = ["| method, batch of 8 | K = 2 | K = 4 | K = 8 |", "|---|---|---|---|"]
    for method in ("merge", "clora-gated-no-update", "clora-gated"):
        cells: list[str] = []
        for num_concepts in (2, 4, 8):
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.gated", "--memory", f"{method},{num_concepts}"],
                check=True,
                capture_output=True,
                text=True,
            )
            cells.append(f"{json.loads(found.stdout.splitlines()[-1]):.0f} MiB")
        lines.append(f"| {method} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def memory_case(method: str, num_concepts: int) -> None:
    """Print how much the process grows beyond a plain batch of the base model, in MiB."""
    composer = Composer(
        load_base_model(emoji_world.base_model_dir()), LoraCache(GIB), graph_budget_bytes=2**50
    )
    batch = rows(method, num_concepts)
    short = {"num_steps": 2, "guide_until_step": 2, "refine_steps": (), "num_refine_updates": 0}
    batch = [replace(row, sampler=CONFIG.model_copy(update=short)) for row in batch]
    one = replace(batch[0], method="base")
    composer.compose([one])
    before = peak_bytes()
    check(composer, batch)
    print((peak_bytes() - before) / 2**20)


def main() -> None:
    """Measure and print; write the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--concepts", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if options.memory:
        method, num_concepts = options.memory.split(",")
        memory_case(method, int(num_concepts))
        return
    times = compare(options.repeats, options.concepts)
    calls = bank(options.repeats)
    memory = peak_memory()
    if options.out:
        about = (
            f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, {options.repeats} interleaved repeats; "
            f"median (smallest-largest)."
        )
        parts = [
            "# What a gated image costs",
            "",
            "Made by `python -m benchmarks.gated` on the embedded world, preset `emoji`, batches "
            "of eight.",
            about,
            "",
            "`base` is the model without LoRAs. With regions no attention map is read, so "
            "`merge` costs nearly the same with and without.",
            "",
            *times,
            "",
            f"One UNet call of {2 * BATCH} lanes, with the bank's constant weights and with its "
            "gate, LoRAs of ranks 4 to 16; what the texts of a gated lane cost is not in it:",
            "",
            *calls,
            "",
            "Growth of the process while a batch of eight is made in two steps, both with "
            "updates where the method has them, beyond one plain image:",
            "",
            *memory,
            "",
        ]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
