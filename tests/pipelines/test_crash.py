"""After a power cut at any moment the same command continues by itself and nothing is lost.

A command is recorded once. Then every state that a cut may leave of it is put on a disk, looked at,
and the command is run again there.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from crash_disk import CrashState, Entry, Files, crash_states
from crash_log import recorded
from crash_world import REFERENCES, Command, World, collect, compose, publish, repair
from engine_kit import BAD_ROW, lora, row
from inline_engine import run_inline
from output_checks import Fact, broken, named_edition

from clora_core.recipe.row import Row
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.tries import TryMarks
from pipelines.outputs.editions import LATEST, newest_edition
from pipelines.planning.plan_uses import concepts_of
from pipelines.planning.references import reference_rows
from pipelines.storage.durable_files import UNFINISHED
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import read_unit

FIRST = [row(101), row(102), row(103, prompt=BAD_ROW)]
CHANGED = [row(102, prompt="another"), *FIRST[2:], row(104)]
ALONE = [row(101, loras=(lora("cat"),))]
MADE = [row(101), row(102), row(104)]
EARLIER = [row(101), row(102)]
LATER = [row(101), row(104)]


@dataclass(frozen=True)
class Scenario:
    """Commands that a power cut may meet.

    Attributes:
        manifest: What has to be there in the end.
        before: Commands whose work is all on the disk.
        cut: Commands that the cut meets; all of them are run again.
        after: Commands that make what is still missing then.
    """

    manifest: Sequence[Row]
    cut: tuple[Command, ...]
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()


def litter(world: World) -> None:
    """Leave what a kill leaves: images of units that are not committed, half writes, marks."""
    storage = world.storage()
    ledger = read_ledger(storage)
    for one in FIRST:
        if one.key not in ledger.made:
            storage.put(image_name(one.key), b"not committed")
    storage.put("rows/.writing-00-unit-z.parquet", b"half")
    TryMarks(storage=storage, run_id="killed").begin(min(ledger.unit_ids))


def damage(world: World) -> None:
    """Cut off an image, a unit that does not hold its row, and a file of every other kind."""
    storage = world.storage()
    kept, lost = sorted(
        storage.list("rows", ".parquet"), key=lambda name: -len(read_unit(storage, name)[0])
    )
    small = [name for folder in ("leases", "plans", "runs") for name in storage.walk(folder)]
    for name in (image_name(read_unit(storage, kept)[0][0]), lost, LATEST, *small):
        path = world.out / name
        path.write_bytes(path.read_bytes()[:-9])


SCENARIOS = {
    "a first run": Scenario(manifest=FIRST, cut=(compose(FIRST),)),
    "a first run with references": Scenario(manifest=ALONE, cut=(compose(ALONE, references=True),)),
    "a changed manifest after an interrupted run": Scenario(
        manifest=CHANGED,
        before=(compose(FIRST, interrupted=True),),
        cut=(compose(CHANGED, rows_per_unit=3),),
    ),
    "an edition after another": Scenario(
        manifest=LATER,
        before=(compose(EARLIER), publish(EARLIER)),
        cut=(compose(LATER), publish(LATER)),
    ),
    "gc after an interrupted run": Scenario(
        manifest=FIRST,
        before=(compose(FIRST, interrupted=True), litter),
        cut=(collect,),
        after=(compose(FIRST),),
    ),
    "repair of an image, a unit and small files": Scenario(
        manifest=MADE,
        before=(compose(MADE), publish(MADE), damage),
        cut=(repair,),
        after=(compose(MADE), publish(MADE)),
    ),
}
"""Add a command that writes to an output here."""

SLOW = ("a first run with references",)
"""Scenarios that ``make faults`` alone runs."""


def quick(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.faults) if name in SLOW else name


def is_unfinished(name: str) -> bool:
    return name.startswith(UNFINISHED)


states_of = partial(crash_states, is_unread=is_unfinished)


@dataclass(frozen=True)
class Recording:
    """A disk before a scenario's commands, and what they did to it."""

    start: Files
    log: Sequence[Entry]

    def learned(self, position: int) -> set[Fact]:
        """Return what the user had learned after so many entries."""
        return {entry.value for entry in self.log[:position] if entry.call == "note"}


def record(scenario: Scenario, disk: Path) -> Recording:
    disk.mkdir()
    for command in scenario.before:
        command(World(disk))
    with recorded(disk) as recorder:
        World(disk, recorder).learn_all()
        for command in scenario.cut:
            command(World(disk, recorder))
    return Recording(recorder.start, recorder.log)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what costs time and has no part in what survives."""
    run_inline(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    monkeypatch.setattr(ThreadPoolExecutor, "map", lambda _pool, *each: map(*each))
    monkeypatch.setattr("pipelines.metrics.run.RunMetrics.text", lambda _metrics: b"metrics")
    monkeypatch.setattr("pipelines.outputs.publish.contact_sheet", lambda *_, **__: None)
    monkeypatch.setattr("pipelines.stages.commit.encode_png", lambda row, **_: row["key"].encode())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory, where there is one: hundreds of disks are written and removed."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="clora-crash-") as own:
        yield Path(own)


@pytest.mark.parametrize("name", [*map(quick, SCENARIOS)])
def test_a_power_cut_at_any_moment_takes_nothing_and_the_same_command_continues(
    folder: Path, name: str
):
    scenario = SCENARIOS[name]
    recording = record(scenario, folder / "recorded")
    world = World(folder / "cut")
    CrashState("strict", 0, recording.start).write(world.disk)
    known = set(map(place_of, broken(world.out, set())))
    shutil.rmtree(world.disk)
    for state in states_of(recording.start, recording.log):
        world = World(folder / "cut")
        state.write(world.disk)
        try:
            check_and_continue(world, scenario, recording.learned(state.position), known)
        except BaseException as error:
            entry = recording.log[state.position - 1]
            error.add_note(f"{state.kind}, after {state.position} of the log: {entry}")
            raise
        shutil.rmtree(world.disk)


def check_and_continue(
    world: World, scenario: Scenario, learned: set[Fact], known: set[str]
) -> None:
    """Check a disk after a cut, run the commands again, and check what they came to."""
    allowed = set() if ("repaired", "", 0) in learned else known
    assert [text for text in broken(world.out, learned) if place_of(text) not in allowed] == []
    for command in (*scenario.cut, *scenario.after):
        command(world)
    assert list(broken(world.out, learned)) == []
    ledger = read_ledger(world.storage())
    assert ledger.made | ledger.failed.keys() >= {one.key for one in scenario.manifest}
    newest = newest_edition(world.storage(), note=print)
    assert newest is None or named_edition(world.storage()) == newest[1].number
    references = reference_rows(concepts_of(scenario.manifest), REFERENCES)
    asked_for = {one.key: (one.prompt, one.seed) for one in (*scenario.manifest, *references)}
    made = {asked_for.get(str(key)) for what, _, key in learned if what == "made"}
    assert made.isdisjoint(world.sampled), "rows that were committed are made again"


def place_of(problem: str) -> str:
    """Return which file is damaged: while it is repaired it may be missing instead."""
    return problem.partition(" is damaged: ")[0]


def problems_without(folder: Path, is_left_out: Callable[[str], bool]) -> dict[str, set[str]]:
    """Return what a cut breaks, by kind, if files or folders of some names were never synced."""
    recording = record(SCENARIOS["a first run"], folder / "recorded")
    unsynced = {
        entry.handle
        for entry in recording.log
        if entry.call in ("open", "create") and is_left_out(entry.names[0].rpartition("/")[2])
    }
    log = [
        entry for entry in recording.log if not (entry.call == "fsync" and entry.handle in unsynced)
    ]
    found: dict[str, set[str]] = {}
    for state in states_of(recording.start, log):
        learned = {entry.value for entry in log[: state.position] if entry.call == "note"}
        world = World(folder / "cut")
        state.write(world.disk)
        found.setdefault(state.kind, set()).update(broken(world.out, learned))
        shutil.rmtree(world.disk)
    return found


def test_a_storage_that_does_not_sync_files_is_caught_with_empty_files(folder: Path):
    found = problems_without(folder, is_unfinished)
    assert any(re.match(r"images/.* is empty", text) for text in found["names kept"])
    assert any(re.match(r"rows/.* is empty", text) for text in found["names kept"])


def test_a_storage_that_does_not_sync_folders_is_caught_with_rows_that_are_gone(folder: Path):
    found = problems_without(folder, lambda name: not is_unfinished(name))
    assert any(text.startswith("made ") for text in found["strict"])
    assert found["names kept"] == set()
