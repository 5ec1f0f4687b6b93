"""Runs that are killed while Ray Data checks and plans, and the plan that is left of them.

    python -m benchmarks.kills [--rows 1000000] [--kills 10]

``clora compose`` with ``plan_on: cluster`` is run until its plan is whole, which says how long that
takes and what the plan is. Then, into an empty output, it is killed (SIGKILL) at random times
before that, and at last run until its plan is whole again. Both plans must hold the same units,
and every key once. No row is made: a run ends as soon as its plan is whole.
"""

import argparse
import atexit
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from benchmarks.planning_job import write_job
from benchmarks.planning_process import units_digest
from pipelines.planning.plan_files import planned_keys, planned_phases
from pipelines.storage.storage import open_storage
from pipelines.units.receipts import Phase

POLL_S = 0.2
GONE_S = 90.0
"""How long the processes of a killed run may take to end themselves."""


def main(argv: list[str] | None = None) -> None:
    """Kill, plan, compare; exit 1 if the plans differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows-per-unit", type=int, default=8)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    chance = random.Random(arguments.seed)  # noqa: S311 - times, not secrets
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        job = write_job(
            Path(name), arguments.rows, rows_per_unit=arguments.rows_per_unit, plan_on="cluster"
        )
        whole_s, family = until_planned(job)
        undisturbed = described(job, arguments.rows)
        print(f"undisturbed: planned after {whole_s:.1f} s; {undisturbed}", flush=True)
        shutil.rmtree(job.parent / "out")
        for number in range(1, arguments.kills + 1):
            after_s = chance.uniform(0, whole_s)
            family |= killed(job, after_s)
            left = left_in(job.parent / "out")
            print(f"kill {number} after {after_s:.1f} s; in the output: {left}", flush=True)
        last_s, last_family = until_planned(job)
        found = described(job, arguments.rows)
        print(f"planned after {last_s:.1f} s more; {found}")
        print(f"in the output: {left_in(job.parent / 'out')}", flush=True)
        passed_s, num_left = gone(family | last_family)
        print(
            f"all processes had ended {passed_s:.0f} s after the last kill, "
            f"{num_left} of them only because they were ended"
        )
        if found != undisturbed:
            sys.exit("the plans differ")


def until_planned(job: Path) -> tuple[float, dict[int, str]]:
    """Run the job until its plan is whole, then kill it.

    Returns:
        After how many seconds that was, and the processes that the run had started.
    """
    before = set(_plans(job))
    start = time.monotonic()
    run = _started(job)
    while not set(_plans(job)) - before:
        if run.poll() is not None:
            raise RuntimeError(f"the run ended: {(job.parent / 'log').read_text()[-2000:]}")
        time.sleep(POLL_S)
    passed_s = time.monotonic() - start
    return passed_s, _killed(run)


def killed(job: Path, after_s: float) -> dict[int, str]:
    """Kill the job's run after some seconds; return the processes that it had started."""
    run = _started(job)
    with suppress(subprocess.TimeoutExpired):
        run.wait(after_s)
    return _killed(run)


def described(job: Path, num_rows: int) -> str:
    """Return what the newest plan holds, as one sentence."""
    storage = open_storage(str(job.parent / "out"))
    run_id = planned_phases(storage, Phase.IMAGES)[-1]
    tables = planned_keys(storage, run_id, Phase.IMAGES, skip=_refuse)
    units = {
        unit_id: [row["key"] for row in rows]
        for table in tables
        for unit_id, rows in groupby(table.to_pylist(), itemgetter("unit_id"))
    }
    keys = Counter(key for members in units.values() for key in members)
    digest = units_digest(units.items())
    return (
        f"{len(units):,} units, {num_rows - len(keys):,} rows lost, "
        f"{keys.total() - len(keys):,} doubled, digest {digest[:12]}"
    )


def left_in(output: Path) -> str:
    """Return how many files are in each folder of an output, hidden ones apart."""
    found: Counter[str] = Counter()
    for path in output.rglob("*"):
        if path.is_file():
            place = path.relative_to(output).parts[0]
            found[f"{place} (hidden)" if path.name.startswith(".") else place] += 1
    return ", ".join(f"{place} {count}" for place, count in sorted(found.items())) or "nothing"


def _refuse(error: Exception) -> None:
    raise error


def _plans(job: Path) -> list[str]:
    return planned_phases(open_storage(str(job.parent / "out")), Phase.IMAGES)


def _started(job: Path) -> subprocess.Popen[bytes]:
    with (job.parent / "log").open("ab") as log:
        command = [sys.executable, "-m", "jobs", "compose", str(job)]
        run = subprocess.Popen(command, stdout=log, stderr=log)
    # Nothing is left at work if this breaks off.
    atexit.register(run.kill)
    return run


def _killed(run: subprocess.Popen[bytes]) -> dict[int, str]:
    family = _descendants(run.pid)
    run.kill()
    run.wait()
    return family


def gone(family: dict[int, str]) -> tuple[float, int]:
    """Wait until processes have ended themselves; end those by their ids that do not.

    Returns:
        How many seconds that took, and how many had to be ended.
    """
    start = time.monotonic()
    while (left := _alive(family)) and time.monotonic() < start + GONE_S:
        time.sleep(POLL_S)
    passed_s = time.monotonic() - start
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return passed_s, len(left)


def _descendants(root: int) -> dict[int, str]:
    """Return the processes under one, by id, with when they began."""
    parents: dict[int, int] = {}
    begun: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], begun[pid] = int(fields[1]), fields[19]
    found: dict[int, str] = {}
    wanted = [root]
    while wanted:
        parent = wanted.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found |= {pid: begun[pid] for pid in children}
        wanted += children
    return found


def _alive(family: dict[int, str]) -> list[int]:
    alive: list[int] = []
    for pid, begun in family.items():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # A zombie is gone, and a number may be another process's by now.
            if fields[0] != "Z" and fields[19] == begun:
                alive.append(pid)
    return alive


if __name__ == "__main__":
    main()
