"""What the fault tests share: settings of a driver, its processes, and the sum at the end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine_kit import BASE_MODEL, SAMPLER, SIDE_PX, lora, row

from clora_core.recipe.row import Row
from pipelines.leases.lease_record import latest_lease
from pipelines.ledger.ledger import read_ledger
from pipelines.planning.references import ReferenceSettings
from pipelines.storage.storage import Storage, open_storage
from pipelines.upkeep.verify import verify_units

TESTS = Path(__file__).parents[1]
DEADLINE_S = 240.0


@dataclass(frozen=True)
class Settings:
    """What a driver does; travels as JSON.

    The last ones are for power cuts and for runs that share references: whether it works without
    Ray, which takes most of a run's time; references of each LoRA, and where; whether it publishes
    an edition, or repairs instead of making rows; whether its writes are synced; and a file on
    another disk for what its user learns.
    """

    out: str
    log: str
    sprung: str
    num_rows: int = 24
    prompts: Mapping[str, str] = field(default_factory=dict)
    broken_loras: Mapping[str, str] = field(default_factory=dict)
    repeated: tuple[int, ...] = ()
    rows_per_unit: int = 4
    actors: int = 1
    cpus_per_actor: float = 1.0
    seconds_a_row: float = 0.02
    beat_s: float = 0.2
    silence_s: float = 3.0
    point: str | None = None
    victim: str = "self"
    broken_start: bool = False
    num_nodes: int = 0
    lose_node_after: int = 0
    replace_node: bool = False
    side_px: int = SIDE_PX
    ballast_mib: int = 0
    spill_folder: str | None = None
    is_inline: bool = False
    num_references: int = 0
    references_at: str | None = None
    publishes: bool = False
    repairs: bool = False
    syncs: bool = True
    facts: str | None = None


def manifest(settings: Settings) -> list[Row]:
    """Return the rows that a driver with ``settings`` is asked for."""
    rows = [_row(settings, index) for index in range(settings.num_rows)]
    return [*rows, *(_row(settings, index) for index in settings.repeated)]


def _row(settings: Settings, index: int) -> Row:
    changes: dict[str, Any] = {"width": settings.side_px, "height": settings.side_px}
    if str(index) in settings.prompts:
        changes["prompt"] = settings.prompts[str(index)]
    kind = settings.broken_loras.get(str(index))
    if kind == "corrupt":
        changes["loras"] = (lora("fox", problem="/loras/fox.safetensors is cut off"),)
    elif kind == "missing":
        changes["loras"] = (lora("fox", uri="nowhere://bucket/fox.safetensors"),)
    elif kind is not None:
        changes["loras"] = (lora("fox", digest=kind),)
    return row(index, **changes)


def references(settings: Settings) -> dict[str, ReferenceSettings]:
    """Return how a driver with ``settings`` makes references."""
    if not settings.num_references:
        return {}
    how = ReferenceSettings(
        num_references=settings.num_references, sampler=SAMPLER, side_px=SIDE_PX
    )
    return {BASE_MODEL: how}


@dataclass(frozen=True)
class Sum:
    """Where the rows are after the last run.

    Attributes:
        num_rows: Distinct rows asked for.
        made: Of them, with an image.
        failed: Of them, without one and with a reason.
        lost: Of them, neither.
        doubled: Images beyond the first of a key.
        waste: Rows computed beyond the first time.
        problems: What verification finds.
    """

    num_rows: int
    made: int
    failed: int
    lost: int
    doubled: int
    waste: int
    problems: tuple[str, ...]


class Drivers:
    """Starts drivers on one output and adds up what they left."""

    def __init__(self, settings: Settings, folder: Path, environment: Mapping[str, str]) -> None:
        self.settings = settings
        self.num_runs = 0
        self._folder = folder
        self._environment = environment

    @property
    def storage(self) -> Storage:
        return open_storage(self.settings.out)

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        """Start a driver with changed settings; its output is read by ``said``."""
        self.num_runs += 1
        path = self._folder / f"driver-{self.num_runs}.json"
        path.write_text(json.dumps(asdict(replace(self.settings, **changes))))
        command = [sys.executable, "-m", "faults.driver", str(path)]
        return subprocess.Popen(
            command,
            cwd=TESTS,
            env=dict(self._environment),
            stdout=subprocess.PIPE,
            stderr=(self._folder / f"driver-{self.num_runs}.err").open("w"),
            text=True,
        )

    def run(self, **changes: Any) -> dict[str, Any]:
        """Run a driver to its end; return what it said last, or how it ended."""
        return said(self.start(**changes))

    def wait_for_units(self, process: subprocess.Popen[str], num_units: int) -> None:
        """Wait until as many units are committed and the driver still lives."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.storage.list("rows", ".parquet")) < num_units:
            assert process.poll() is None, "the driver ended too early"
            assert time.monotonic() < deadline, "no unit was committed in time"
            time.sleep(0.02)

    def wait_for_calls(self, process: subprocess.Popen[str], num_calls: int) -> bool:
        """Wait until a driver is at work and as many units more were begun; False if it ended."""
        deadline = time.monotonic() + DEADLINE_S
        num_before = self._num_calls()
        while not (self._is_at_work(process) and self._num_calls() >= num_before + num_calls):
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the units were not begun in time"
            time.sleep(0.05)
        return True

    def _is_at_work(self, process: subprocess.Popen[str]) -> bool:
        lease = latest_lease(self.storage)
        is_ours = lease is not None and lease.process.split()[1:2] == [str(process.pid)]
        return is_ours and self.storage.exists(f"runs/{lease.run_id}.json")

    def _num_calls(self) -> int:
        log = Path(self.settings.log)
        return len(log.read_text().splitlines()) if log.exists() else 0

    def add_up(self, asked: Settings | None = None) -> Sum:
        """Return where the rows of ``asked`` (the settings if None) are."""
        keys = {one.key for one in manifest(asked or self.settings)}
        ledger = read_ledger(self.storage)
        problems = [text for check in verify_units(self.storage) for text in check.problems]
        made, failed = keys & ledger.made, keys & ledger.failed.keys()
        return Sum(
            num_rows=len(keys),
            made=len(made),
            failed=len(failed),
            lost=len(keys - made - failed),
            doubled=ledger.num_doubled,
            waste=self.waste(),
            problems=tuple(problems),
        )

    def waste(self) -> int:
        """Return how many rows the engines were given beyond once each."""
        log = Path(self.settings.log)
        lines = log.read_text().splitlines() if log.exists() else []
        counts = Counter(seed for line in lines for seed in line.split()[1:])
        return sum(counts.values()) - len(counts)


Record = Callable[[str, Drivers, Sum, int], None]
"""Takes what broke, the drivers, what they left, and the most rows that may be computed again."""


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a driver's end; return its last line's JSON, or the exit code if there is none."""
    try:
        text, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    lines = text.strip().splitlines()
    if process.returncode < 0 or not lines or not lines[-1].startswith("{"):
        return {"outcome": "died", "code": process.returncode}
    return json.loads(lines[-1])


def stop(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGSTOP)


def go_on(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGCONT)
