"""What the engine costs beside sampling: overhead, scaling, LoRA loads, time to the first row.

    python -m benchmarks.engine [--parts overhead scaling loads start] [--out FILE]

The sampler sleeps, so that what is measured is the engine: Ray, plan, storage, commits. Figures are
ratios to something measured in the same run. The last part is the real thing: the embedded world
through ``clora compose`` against a script that loads the same model and makes the same rows.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine_kit import Watcher, request, row

from benchmarks.first_row import first_row_lines
from benchmarks.lora_loads import lora_load_lines
from benchmarks.sleeping import SleepingSource, calls
from pipelines.run import compose_rows
from pipelines.session.private_cluster import private_cluster
from pipelines.session.resources import Resources

ROWS_PER_UNIT = 8
"""The product's default."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Seconds of one run; the steady ones are from the sampler's first call to the last commit."""

    whole_s: float
    steady_s: float


def engine_run(num_rows: int, seconds_a_row: float, actors: int, rows_per_unit: int) -> Run:
    """Make rows with a sleeping sampler through the whole engine, into a folder."""
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        start = time.time()
        asked = request(
            Path(name) / "out",
            [row(index) for index in range(num_rows)],
            references=None,
            load_scorer=None,
            load_model_host=SleepingSource(log=log, seconds_a_row=seconds_a_row),
            resources=Resources(actors=actors, rows_per_unit=rows_per_unit, cpus_per_actor=0.1),
        )
        account = compose_rows(asked, Watcher(), address=None)
        end = time.time()
        if account.num_made != num_rows:
            raise RuntimeError(f"{account.num_made} of {num_rows} rows were made")
        return Run(whole_s=end - start, steady_s=end - min(call.start_s for call in calls(log)))


def loop_s(num_rows: int, seconds_a_row: float, rows_per_unit: int) -> float:
    """Return what a plain loop over the same calls of the same sampler takes; it keeps nothing."""
    with tempfile.TemporaryDirectory() as name:
        engine = SleepingSource(log=Path(name) / "log", seconds_a_row=seconds_a_row)()
        composable = [row(index) for index in range(num_rows)]
        start = time.time()
        for first in range(0, num_rows, rows_per_unit):
            engine.compose(composable[first : first + rows_per_unit])
        return time.time() - start


def overhead_lines(repeats: int) -> Iterator[str]:
    """Yield the table of the engine's time against a plain loop's, with one actor."""
    yield "| a row takes | rows | plain loop, s | engine, steady, s | overhead | whole run, s |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for seconds_a_row, num_rows in ((0.01, 800), (0.1, 160), (1.0, 40)):
        ratios: list[float] = []
        for _ in range(repeats):
            loop = loop_s(num_rows, seconds_a_row, ROWS_PER_UNIT)
            run = engine_run(num_rows, seconds_a_row, 1, ROWS_PER_UNIT)
            ratios.append(run.steady_s / loop - 1)
        yield (
            f"| {seconds_a_row * 1000:g} ms | {num_rows:,} | {loop:.1f} | {run.steady_s:.1f} | "
            f"{_spread(ratios)} | {run.whole_s:.1f} |"
        )


def scaling_lines(repeats: int) -> Iterator[str]:
    """Yield the table of a sleeping sampler spread over actors."""
    num_rows, seconds_a_row = 320, 0.25
    yield "| actors | steady, s | efficiency against one |"
    yield "|--:|--:|--:|"
    alone: list[float] = []
    for actors in (1, 2, 4, 8):
        runs = [
            engine_run(num_rows, seconds_a_row, actors, ROWS_PER_UNIT).steady_s
            for _ in range(repeats)
        ]
        alone = alone or runs
        shares = [median(alone) / (actors * run) for run in runs]
        yield f"| {actors} | {median(runs):.1f} | {median(shares):.2f} |"


def _spread(ratios: list[float]) -> str:
    shown = f"{median(ratios):.1%}"
    return shown if len(ratios) == 1 else f"{shown} ({min(ratios):.1%} to {max(ratios):.1%})"


PARTS: dict[str, tuple[str, Callable[[int], Iterator[str]]]] = {
    "overhead": (
        "Overhead: the whole engine (plan, lease, Ray, PNG, commits, ledger) less a plain loop "
        f"that makes the same calls and keeps nothing; one actor, units of {ROWS_PER_UNIT}.",
        overhead_lines,
    ),
    "scaling": (
        f"Scaling: 320 rows of 250 ms in units of {ROWS_PER_UNIT}; every actor is a process on "
        "these same cores.",
        scaling_lines,
    ),
    "loads": (
        "LoRA loads: 50 sets of two LoRAs, asked for as Zipf has it, four actors whose caches hold "
        "four LoRAs. The bound is every LoRA once.",
        lora_load_lines,
    ),
    "start": (
        "Time to the first row on the embedded world, from the start of the process.",
        first_row_lines,
    ),
}


def main() -> None:
    """Measure the parts that are asked for and print, or write, their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# The engine beside the sampling",
        "",
        "Made by `python -m benchmarks.engine`.",
        f"{os.cpu_count()} cores ({platform.machine()}), Ray {version('ray')}, "
        f"{arguments.repeats} repeat(s); medians, with their spread where there are several.",
    ]
    print(*lines, sep="\n")
    with private_cluster(num_cpus=2):
        for name in arguments.parts:
            title, table = PARTS[name]
            for line in ("", title, "", *table(arguments.repeats)):
                print(line, flush=True)
                lines.append(line)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
