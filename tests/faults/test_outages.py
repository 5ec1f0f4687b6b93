"""A store that is away for 5, 30 and 90 seconds, and for good, at each phase of a run.

The command has its usual patience of a minute. All phases of one length go at once, because nearly
all of the time is waiting.
"""

import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fault_proxy import FaultPlan, FaultProxy, fault_proxy, outage
from faults.away_driver import NUM_REFERENCES
from faults.kit import TESTS, Record, Sum
from input_kit import row, write_job
from s3_kit import S3Server

from pipelines.ledger.ledger import read_ledger
from pipelines.storage.storage import open_storage
from pipelines.upkeep.verify import verify_units

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NUM_ROWS = 8
ROWS_PER_UNIT = 4
RUN_TIMEOUT_S = 400.0
PATIENCE_S = 60.0

PHASES = {
    "the ledger is read": ("GET", "rows"),
    "the output is claimed": ("PUT", "/leases/"),
    "the run's record begins": ("PUT", "/runs/"),
    "the plan is written": ("PUT", "/plans/"),
    "a reference's image is written": ("PUT", "/references/dino-none/images/"),
    "a unit of references is committed": ("PUT", "/references/dino-none/rows/"),
    "the centroids are written": ("PUT", "centroids"),
    "the centroids are read": ("GET", "centroids"),
    "an image is written": ("PUT", "/out/images/"),
    "a unit is committed": ("PUT", "/out/rows/"),
    "the account is kept": ("PUT", "metrics.prom"),
    "the card is written": ("PUT", "README.md"),
}
"""The request that the store goes away at: its method and a part of its name."""

ON_RAY = ("an image is written", "a unit is committed")
"""Phases that are also tried with Ray, whose processes start slowly."""


@dataclass
class Trial:
    """Runs of one command on one output, through a proxy of their own.

    Attributes:
        folder: For the job and the log.
        out: The output.
        proxy: What goes away.
        environment: Of the command.
        how: ``inline`` or ``ray``.
        ends: What each run came to.
    """

    folder: Path
    out: str
    proxy: FaultProxy
    environment: dict[str, str]
    how: str
    ends: list[subprocess.CompletedProcess[str]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "calls"

    def compose(self) -> subprocess.CompletedProcess[str]:
        if not self.ends:
            rows = [row(seed=seed) for seed in range(NUM_ROWS)]
            resources = {"rows_per_unit": ROWS_PER_UNIT}
            write_job(self.folder, rows, output=self.out, resources=resources)
        job, there = self.folder / "job.yaml", {"AWS_ENDPOINT_URL": self.proxy.endpoint}
        done = subprocess.run(
            [sys.executable, "-m", "faults.away_driver", str(job), str(self.log), self.how],
            cwd=TESTS,
            env={**self.environment, **there},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        self.ends.append(done)
        return done

    def add_up(self) -> Sum:
        """Return where the rows and references are, as one sum."""
        made = doubled = 0
        problems: list[str] = []
        for place in (self.out, f"{self.out}/references/dino-none"):
            ledger = read_ledger(open_storage(place))
            made, doubled = made + len(ledger.made), doubled + ledger.num_doubled
            problems += [
                text for check in verify_units(open_storage(place)) for text in check.problems
            ]
        num_rows = NUM_ROWS + 2 * NUM_REFERENCES
        num_sampled = sum(len(line.split()) - 1 for line in self.log.read_text().splitlines())
        waste = num_sampled - num_rows
        return Sum(num_rows, made, 0, num_rows - made, doubled, waste, tuple(problems))


@pytest.mark.parametrize("seconds", [5.0, 30.0, 90.0, math.inf])
def test_a_store_that_is_away_for_a_while_costs_time_and_for_longer_ends_with_a_sentence(
    s3_server: S3Server,
    s3_uri: str,
    tmp_path: Path,
    environment: dict[str, str],
    record: Record,
    seconds: float,
):
    def run(number: int) -> Trial:
        phase, how = trials[number]
        method, part = PHASES[phase]
        out = f"{s3_uri}/{number}/out"
        with fault_proxy(s3_server.port) as proxy:
            trial = Trial(tmp_path / str(number), out, proxy, environment | store, how)
            proxy.plan = outage("away", seconds=seconds, method=method, path_part=part)
            first = trial.compose()
            assert proxy.plan.num_failed, phase
            if seconds < PATIENCE_S:
                assert first.returncode == 0, first.stderr
            else:
                assert first.returncode == 1, first.stderr
                assert re.search(rf"{out}/\S* cannot be .*; tried \d+ times in 6\d s", first.stderr)
                if math.isinf(seconds):
                    proxy.plan = FaultPlan()
                # What is left of the outage is less than a minute.
                second = trial.compose()
                assert second.returncode == 0, second.stderr
            for end in trial.ends:
                assert "Traceback" not in end.stdout + end.stderr, end.stdout + end.stderr
        return trial

    store = s3_server.environment
    trials = [(phase, "inline") for phase in PHASES] + [(phase, "ray") for phase in ON_RAY]
    with ThreadPoolExecutor(len(trials)) as pool:
        done = list(pool.map(run, range(len(trials))))
    sums = [trial.add_up() for trial in done]
    columns = zip(*(astuple(total) for total in sums), strict=True)
    total = Sum(*(sum(column, start=type(column[0])()) for column in columns))
    length = "for good" if math.isinf(seconds) else f"for {seconds:.0f} s"
    runs = SimpleNamespace(
        settings=SimpleNamespace(out=s3_uri), num_runs=sum(len(trial.ends) for trial in done)
    )
    # A unit is lost where its commit or an image of it was what failed.
    bound = 0 if seconds < PATIENCE_S else len(trials) * ROWS_PER_UNIT
    record(f"S3: away {length}, {len(trials)} moments", cast("Any", runs), total, bound)
