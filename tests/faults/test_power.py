"""Power cuts of real file systems: what was committed stays, and the same command continues.

Every cut takes the power from a file system of its own while a driver works on it, kills the driver
and all that it started, mounts what is left, and runs the same command again.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults.kit import Drivers, Record, Sum
from faults.power import KINDS, PowerDisk, power_disk, unavailable
from faults.test_faults import BAD, IN_FLIGHT, UNIT, Make
from faults.trial import Trial, rows_made
from output_checks import broken

from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import read_unit

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(1200)]

ROWS = {"prompts": BAD, "seconds_a_row": 0.05, "is_inline": True}


def damage(out: Path) -> None:
    """Cut off images, a unit and plans."""
    units = sorted((out / "rows").iterdir())
    lost, _ = read_unit(LocalStorage(out), f"rows/{units[0].name}")
    images = [path for path in sorted((out / "images").rglob("*.png")) if path.stem not in lost]
    for path in (units[0], *images[:8], *(out / "plans").glob("*/*")):
        path.write_bytes(path.read_bytes()[:-9])


@dataclass(frozen=True)
class Scenario:
    """A command that the power cut meets.

    Attributes:
        num_moments: How many cuts there are.
        settings: Of all its drivers.
        before: Changes for drivers whose work was all on the disk.
        damage: What befell the output after them.
        cut: Changes for the driver that the cut meets, and for the one that continues.
        after: Changes for drivers that make what is missing then.
        start_s: The most that passes between the lease and the cut if no receipt is waited for.
        delay_s: The most that passes between a receipt and the cut.
    """

    num_moments: int
    settings: Mapping[str, Any]
    before: tuple[Mapping[str, Any], ...] = ()
    damage: Callable[[Path], None] | None = None
    cut: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Mapping[str, Any], ...] = ()
    start_s: float = 0.3
    delay_s: float = 0.4


SCENARIOS = {
    "compose": Scenario(num_moments=7, settings=ROWS),
    "compose on Ray": Scenario(
        num_moments=3, settings={**ROWS, "is_inline": False}, start_s=12.0, delay_s=1.0
    ),
    "references": Scenario(num_moments=5, settings={**ROWS, "num_rows": 8, "num_references": 5}),
    "catalog": Scenario(
        num_moments=5,
        settings={**ROWS, "prompts": {}, "publishes": True},
        before=({"num_rows": 16},),
    ),
    "repair": Scenario(
        num_moments=5,
        settings=ROWS,
        before=({},),
        damage=damage,
        cut={"repairs": True},
        after=({},),
        start_s=0.12,
    ),
}
"""Add a command that writes to an output here."""


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PowerDisk]:
    """Yield a mounted file system of each kind."""
    reason = unavailable(request.param, tmp_path / "tried")
    if reason is not None:
        pytest.skip(reason)
    with power_disk(request.param, tmp_path / "disk") as disk:
        disk.mount()
        yield disk


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_cut_at_random_moments_takes_nothing_and_the_same_command_continues(
    drivers: Make, record: Record, disk: PowerDisk, tmp_path: Path, name: str
):
    scenario = SCENARIOS[name]
    out = disk.place / "out"
    for changes in scenario.before:
        ran = drivers(out=str(out), log=str(tmp_path / "before"), **scenario.settings)
        assert ran.run(**changes)["outcome"] == "finished"
    if scenario.damage is not None:
        scenario.damage(out)
    known, made = set(broken(out, set())), rows_made(out)
    disk.unmount()
    disk.keep()
    moments = random.Random(name)
    trials: list[tuple[Drivers, Sum]] = []
    for number in range(scenario.num_moments):
        disk.restore()
        disk.mount()
        own = {what: str(tmp_path / f"{what}-{number}") for what in ("log", "facts")}
        trial = Trial(drivers(out=str(out), **own, **scenario.settings), disk, made)
        cut_at_a_moment(trial, scenario, moments)
        assert set(broken(out, trial.facts())) <= known
        pending, num_sampled = trial.pending(), len(trial.sampled())
        for changes in (scenario.cut, *scenario.after):
            assert trial.ran.run(**changes)["outcome"] == "finished"
        assert list(broken(out, trial.facts())) == []
        again = Counter(trial.sampled()[num_sampled:]) - pending
        assert not again, "rows that were committed are made again"
        trials.append((trial.ran, trial.add_up()))
        disk.unmount()
    fault = f"power cut, {disk.kind}, {name}, {len(trials)} moments"
    record(fault, *added(trials), len(trials) * (IN_FLIGHT + len(BAD)))


def cut_at_a_moment(trial: Trial, scenario: Scenario, moments: random.Random) -> None:
    most_units = 0 if scenario.cut else -(-trial.pending().total() // UNIT)
    num_units = moments.randint(0, most_units)
    longest_s = scenario.delay_s if num_units else scenario.start_s
    trial.cut(num_units, moments.uniform(0.0, longest_s), **scenario.cut)


def added(trials: list[tuple[Drivers, Sum]]) -> tuple[Drivers, Sum]:
    """Return several trials as one."""
    ran, _ = trials[-1]
    ran.num_runs = sum(one.num_runs for one, _ in trials)
    columns = zip(*(astuple(total) for _, total in trials), strict=True)
    return ran, Sum(*(sum(column, start=type(column[0])()) for column in columns))


def test_a_disk_that_forgets_to_sync_is_caught(drivers: Make, disk: PowerDisk, tmp_path: Path):
    ran = drivers(out=str(disk.place / "out"), facts=str(tmp_path / "facts"), syncs=False, **ROWS)
    trial = Trial(ran, disk)
    trial.cut(3, 0.0)
    units = [name for what, _, name in trial.facts() if what == "unit"]
    assert len(units) >= 3
    problems = list(broken(trial.out, trial.facts()))
    assert any(str(name) in text for name in units for text in problems), problems
