"""What an adapter of each kind costs beside the bare UNet: time, memory, reading and packing.

    python -m benchmarks.adapter_kinds [--repeats 5] [--out docs/benchmarks/adapter_kinds.md]

A UNet of Stable Diffusion 1.5's shape at a part of its width, with random weights, and one adapter
of each kind for all linear layers and convolutions of its blocks. One UNet call over eight lanes,
each lane a row's: all of one kind, and eight kinds at once. Everything is in one process and in
turns, and counts a core's own seconds, so ratios hold whatever else the machine does.
"""

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.adapter_files import KINDS, NORMS, write_adapter
from benchmarks.sampler import spread
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.load import lora_targets, read_lora

LANES = 8
MIXED = (
    "LoRA, rank 16",
    "LoHa, rank 8",
    "LoKr, factor 8",
    "DoRA, rank 16",
    "DoRA of inputs, rank 16",
    "OFT, 8 blocks",
    "BOFT, 3 steps",
    "whole differences",
)
"""Of the lanes of one batch."""

MIB = 2**20


class Made(NamedTuple):
    """An adapter, and what it took to have it."""

    factors: LoraFactors
    file_bytes: int
    read_s: float


class Case(NamedTuple):
    """Adapters and what each lane takes of them."""

    loras: Sequence[LoraFactors]
    weights: Tensor


class Cost(NamedTuple):
    """Of one case: time over the bare UNet's, time of packing, and memory of both."""

    ratios: list[float]
    pack_s: list[float]
    packed_bytes: int
    call_bytes: int


class Bench:
    """A UNet, its inputs, and one adapter of each kind."""

    def __init__(self, folder: Path, unet: UNet2DConditionModel) -> None:
        self.unet = unet.eval()
        self.unet.requires_grad_(requires_grad=False)
        side: int = unet.config["sample_size"]
        self._latents = torch.randn(LANES, 4, side, side)
        self._text = torch.randn(LANES, 77, unet.config["cross_attention_dim"])
        targets = lora_targets({"unet": self.unet})
        self.made: dict[str, Made] = {}
        for kind in (*KINDS, NORMS):
            path = write_adapter(folder, kind, self.unet)
            read: list[LoraFactors] = []
            took = core_seconds(lambda path=path, read=read: read.append(read_lora(path, targets)))
            self.made[kind] = Made(read[0], path.stat().st_size, took)
            path.unlink()

    @property
    def num_parameters(self) -> int:
        """Of the UNet."""
        return sum(each.numel() for each in self.unet.parameters())

    def call(self) -> None:
        """Run the UNet once over all lanes."""
        with torch.no_grad():
            self.unet(self._latents, 500, self._text)

    def with_bank(self, bank: LoraBank, weights: Tensor) -> None:
        """Run it with adapters."""
        with bank.attached():
            bank.use(weights)
            self.call()

    def cases(self) -> dict[str, Case]:
        """Return every kind in all lanes, and eight kinds in a lane each."""
        alone = torch.ones(LANES, 1)
        found = {kind: Case([made.factors], alone) for kind, made in self.made.items()}
        mixed = [self.made[kind].factors for kind in MIXED]
        plain = [self.made[MIXED[0]].factors] * LANES
        return {
            **found,
            "eight LoRAs, one a lane": Case(plain, torch.eye(LANES)),
            "eight kinds, one a lane": Case(mixed, torch.eye(LANES)),
        }


def random_unet(part: int, side: int) -> UNet2DConditionModel:
    """Return a UNet of Stable Diffusion 1.5's shape with 1/``part`` of its channels."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=side,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=tuple(width // part for width in (320, 640, 1280, 1280)),
        norm_num_groups=32 // part,
    )


def measure(bench: Bench, repeats: int) -> tuple[float, int, dict[str, Cost]]:
    """Return the bare UNet's median seconds and memory, and every case's cost."""
    bare: list[float] = []
    bench.call()
    bare_bytes = max(allocations(bench.call))
    costs = {name: Cost([], [], *memory(bench, case)) for name, case in bench.cases().items()}
    for _ in range(repeats):
        for name, case in bench.cases().items():
            banks: list[LoraBank] = []
            packing = core_seconds(
                lambda case=case, banks=banks: banks.append(
                    LoraBank(bench.unet, case.loras, "unet")
                )
            )
            costs[name].pack_s.append(packing)
            bare.append(core_seconds(bench.call))
            took = core_seconds(
                lambda case=case, banks=banks: bench.with_bank(banks[0], case.weights)
            )
            costs[name].ratios.append(took / bare[-1])
    return median(bare), bare_bytes, costs


def memory(bench: Bench, case: Case) -> tuple[int, int]:
    """Return the bytes of the bank, and the most that a call holds at once."""
    banks: list[LoraBank] = []
    packing = allocations(lambda: banks.append(LoraBank(bench.unet, case.loras, "unet")))
    calling = allocations(lambda: bench.with_bank(banks[0], case.weights))
    return packing[-1], max(calling)


def allocations(run: Callable[[], object]) -> list[int]:
    """Return the bytes of tensors that are held beyond those before ``run``, after each change."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
        gc.collect()
    events: list[Any] = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return list(accumulate((event.nbytes() for event in changes), initial=0))


def core_seconds(run: Callable[[], object]) -> float:
    """Return a core's seconds of one call, which others on the machine hardly change."""
    start = time.process_time()
    run()
    return time.process_time() - start


def table(bench: Bench, bare_s: float, bare_bytes: int, costs: dict[str, Cost]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| adapter | file, MiB | cache / file | read, s | pack / call | packed, MiB | "
        "call / bare | memory of a call / bare |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, cost in costs.items():
        cells = ["", "", ""]
        if name in bench.made:
            made = bench.made[name]
            cells = [
                f"{made.file_bytes / MIB:.1f}",
                f"{made.factors.num_bytes / made.file_bytes:.2f}",
                f"{made.read_s:.2f}",
            ]
        cells += [
            f"{median(cost.pack_s) / bare_s:.2f}",
            f"{cost.packed_bytes / MIB:.0f}",
            spread(cost.ratios),
            f"{cost.call_bytes / bare_bytes:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and print; write the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", type=int, default=2, help="of Stable Diffusion 1.5's width")
    parser.add_argument("--side", type=int, default=16, help="of the latents")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), random_unet(options.part, options.side))
    bare_s, bare_bytes, costs = measure(bench, options.repeats)
    lines = table(bench, bare_s, bare_bytes, costs)
    print("\n".join(lines))
    if options.out:
        size = (options.part, options.side, options.repeats)
        about = _about(size, bench.num_parameters, bare_s, bare_bytes)
        options.out.write_text("\n".join(["# Kinds of adapter", "", about, "", *lines, "", _WORDS]))


def _about(size: tuple[int, int, int], num_parameters: int, bare_s: float, bare_bytes: int) -> str:
    part, side, repeats = size
    return " ".join(
        [
            f"Made by `python -m benchmarks.adapter_kinds --part {part} --side {side} "
            f"--repeats {repeats}` on one thread of a shared machine of {os.cpu_count()} cores "
            f"({platform.machine()}), torch {torch.__version__}, float32.",
            f"A UNet of Stable Diffusion 1.5's shape at 1/{part} of its width "
            f"({num_parameters / 1e6:.0f} M parameters) sees {LANES} lanes of {side}x{side} "
            "latents, at full size 64x64.",
            "An adapter changes all linear layers and convolutions of the UNet's blocks, or all "
            "their norms; files are float16.",
            f"The bare UNet takes {bare_s:.2f} s of the core and {bare_bytes / MIB:.0f} MiB.",
            "Each call with an adapter has a bare one before it, and their ratio counts: median "
            "(smallest-largest).",
        ]
    )


_WORDS = """\
- cache / file: bytes held in the LoRA cache for a byte of the file.
- pack / call: time to build the bank, in bare calls. It is built once a batch, which has at least a
  call a step; on larger latents a call takes longer, and packing does not.
- packed: what the bank holds beside the cache.
- memory of a call: tensors that are held at once, at most, beside weights and bank.
"""


if __name__ == "__main__":
    main()
