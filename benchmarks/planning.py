"""What a plan costs before anything is made: seconds and memory, here, before, and on Ray Data.

    python -m benchmarks.planning [--parts process committed ray tickets] [--rows 100000 1000000]
        [--base FOLDER] [--repeats 1]

Parts: ``process`` checks and plans in one process, and in that of another checkout (``--base``) as
well; ``committed`` plans again with nine rows in ten committed, without an index and with one;
``ray`` does it by Ray Data on a private cluster of one core and of two, the process and all that it
starts kept to these cores; ``tickets`` hands a run's tickets to Ray.

Every measurement is a process of its own. Seconds are wall time; those in brackets are processor
time of the process, which the load of the machine changes little. Peak memory is of each step.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.planning_job import write_job

MIB = 1024**2
ROOT = Path(__file__).parents[1]
STEPS = ("check", "ledger", "plan", "write")


def process_lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table of one process, of this checkout and the other one."""
    yield "| rows | of | check s | ledger s | plan s | write s | all s | µs a row | peak MiB |"
    yield "|--:|---|--:|--:|--:|--:|--:|--:|--:|"
    for num_rows in arguments.rows:
        with _job(arguments, num_rows) as job:
            here = median_of([_asked(job) for _ in range(arguments.repeats)])
            yield _row(num_rows, "this", here)
            if arguments.base is None or num_rows > arguments.base_rows:
                continue
            base = _asked(job, root=arguments.base)
            yield _row(num_rows, "base", base)
            yield f"|  | base / this | {_ratios(base, here)} |"


def committed_lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table of an output where nine rows in ten are committed; checked once."""
    yield "| rows | committed | index | ledger s | plan s | write s | units | peak MiB |"
    yield "|--:|--:|---|--:|--:|--:|--:|--:|"
    for num_rows in arguments.rows:
        with _job(arguments, num_rows) as job:
            found = _asked(job, "--steps", "plan", "commit", "plan", "index", "plan")
        for has_index, plan in zip(("", "none", "written"), found["plans"], strict=True):
            cells = " | ".join(_seconds(plan, step) for step in STEPS[1:])
            yield (
                f"| {num_rows:,} | {plan['committed']:,} | {has_index} | {cells} | "
                f"{plan['units']:,} | {_peak(plan):.0f} |"
            )
        yield (
            f"| {num_rows:,} | | its check takes {_seconds(found, 'check')} s and "
            f"{_peak(found, ('check',)):.0f} MiB | | | | | |"
        )
        yield (
            f"| {num_rows:,} | | reading units and writing it takes {_seconds(found, 'index')} s "
            f"and {_peak(found, ('index',)):.0f} MiB | | | | | |"
        )


def ray_lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table of Ray Data on one core and on two, and whether plans are the same."""
    yield "| rows | cores | start s | check s | plan s | write s | all s | driver's peak MiB |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for num_rows in arguments.rows:
        with _job(arguments, num_rows) as job:
            digests = {_asked(job, "--digest")["plans"][0]["digest"]}
            walls: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(arguments.repeats):
                for cores, runs in walls.items():
                    found = _asked(job, "--digest", "--ray", str(cores))
                    plan = found["plans"][0]
                    digests.add(plan["digest"])
                    runs.append(found["check_s"] + plan["plan_s"] + plan["write_s"])
                    yield (
                        f"| {num_rows:,} | {cores} | {found['started_s']:.1f} | "
                        f"{found['check_s']:.1f} | {plan['plan_s']:.1f} | {plan['write_s']:.1f} | "
                        f"{runs[-1]:.1f} | {max(_peak(found, ('check',)), _peak(plan)):.0f} |"
                    )
        efficiency = median(walls[1]) / (2 * median(walls[2]))
        same = "the same plan as in process" if len(digests) == 1 else "ANOTHER PLAN"
        yield f"| {num_rows:,} | | efficiency of two cores {efficiency:.2f}; {same} | | | | | |"


def ticket_lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table of a run's tickets on their way into Ray."""
    yield "| tickets | s | µs each | driver's peak MiB | more than before, MiB |"
    yield "|--:|--:|--:|--:|--:|"
    for num_tickets in arguments.tickets:
        found = _ask("-m", "benchmarks.tickets", str(num_tickets))
        more = found["peak_bytes"] - found["before_bytes"]
        yield (
            f"| {num_tickets:,} | {found['hand_over_s']:.1f} | "
            f"{found['hand_over_s'] / num_tickets * 1e6:.0f} | {found['peak_bytes'] / MIB:.0f} | "
            f"{more / MIB:.0f} |"
        )


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "process": process_lines,
    "committed": committed_lines,
    "ray": ray_lines,
    "tickets": ticket_lines,
}


def main(argv: list[str] | None = None) -> None:
    """Measure the parts that are asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rows-per-unit", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--base", type=Path, help="another checkout of the project")
    parser.add_argument("--base-rows", type=int, default=1_000_000, help="most rows for it")
    parser.add_argument("--tickets", type=int, nargs="+", default=[12_500, 125_000])
    arguments = parser.parse_args(argv)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"temporary files in {tempfile.gettempdir()}"
    )
    for part in arguments.parts:
        print(f"\n{part}, load of the machine {os.getloadavg()[0]:.1f}\n")
        for line in PARTS[part](arguments):
            print(line, flush=True)


class _job:  # noqa: N801 - a context
    """A job in a folder of its own, within the block."""

    def __init__(self, arguments: argparse.Namespace, num_rows: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="planning-")
        self._job = write_job(
            Path(self._folder.name), num_rows, rows_per_unit=arguments.rows_per_unit
        )

    def __enter__(self) -> Path:
        return self._job

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def median_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the measurement with the median of all seconds."""
    return sorted(found, key=_all_s)[len(found) // 2]


def _asked(job: Path, *options: str, root: Path = ROOT) -> dict[str, Any]:
    shutil.rmtree(job.parent / "out", ignore_errors=True)
    script = Path(__file__).with_name("planning_process.py")
    return _ask("-P", str(script), str(job), *options, root=root)


def _ask(*arguments: str, root: Path = ROOT) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def _row(num_rows: int, checkout: str, found: dict[str, Any]) -> str:
    cells = " | ".join(_seconds(_flat(found), step) for step in STEPS)
    whole = _all_s(found)
    return (
        f"| {num_rows:,} | {checkout} | {cells} | {whole:.1f} | {whole / num_rows * 1e6:.0f} | "
        f"{_peak(_flat(found), STEPS):.0f} |"
    )


def _ratios(base: dict[str, Any], here: dict[str, Any]) -> str:
    def ratio(of: Callable[[dict[str, Any]], float]) -> str:
        return f"{of(base) / of(here):.1f}"

    return " | ".join(
        [
            ratio(lambda found: found["check_s"]),
            "",
            ratio(lambda found: _flat(found)["plan_s"]),
            ratio(lambda found: _flat(found)["write_s"]),
            ratio(_all_s),
            "",
            ratio(lambda found: _peak(_flat(found), STEPS)),
        ]
    )


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, **found["plans"][0]}


def _all_s(found: dict[str, Any]) -> float:
    return sum(_flat(found)[f"{step}_s"] for step in STEPS)


def _seconds(found: dict[str, Any], step: str) -> str:
    return f"{found[f'{step}_s']:.1f} ({found[f'{step}_cpu_s']:.1f})"


def _peak(found: dict[str, Any], steps: tuple[str, ...] = STEPS[1:]) -> float:
    return max(found[f"{step}_peak_bytes"] for step in steps) / MIB


if __name__ == "__main__":
    main()
