"""A row that ends its process is found by what the process left behind, and by nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from engine_kit import EXIT, FakeModelHost, planned_table, row, rows

from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.ledger.tries import TryMarks, tries_of
from pipelines.stages.generate import generate_unit
from pipelines.storage.local import LocalStorage
from pipelines.units.message import UnitFacts, UnitMessage

UNIT = "u1"


class Death(BaseException):
    """What the end of a process is to the code in it: nothing that it could catch."""


class DyingEngine(FakeModelHost):
    """Dies of a prompt as the fake engine does, but in a way that a test survives."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        self.calls.append([row.seed for row in rows])
        if any(row.prompt == EXIT for row in rows):
            raise Death
        return super().compose(rows)


class KilledEngine(FakeModelHost):
    """Dies of whatever it is asked for, as a process whose driver is killed."""

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:  # noqa: ARG002
        raise Death


@pytest.fixture
def log(tmp_path: Path) -> TryMarks:
    return TryMarks(storage=LocalStorage(tmp_path), run_id="run-1")


def message(unit: Sequence[Row]) -> UnitMessage:
    return UnitMessage(unit_id=UNIT, rows=planned_table(unit), facts=UnitFacts())


def until_it_lives(
    unit: Sequence[Row], engine: DyingEngine, log: TryMarks
) -> tuple[list[dict[str, object]], int]:
    """Try as Ray does, again and again; return the rows and how many processes died."""
    for deaths in range(20):
        try:
            return generate_unit(message(unit), engine, log).rows.to_pylist(), deaths
        except Death:
            continue
    raise AssertionError("it kills for ever")


def test_a_row_that_kills_is_found_alone_and_its_neighbours_are_made(log: TryMarks):
    engine = DyingEngine()
    unit = [row(0), row(1, prompt=EXIT), row(2)]
    made, deaths = until_it_lives(unit, engine, log)
    assert engine.calls == [[0, 1, 2], [0, 1, 2], [0], [1], [0], [2]]
    assert deaths == 3
    assert [one["failure"] is None for one in made] == [True, False, True]
    failure = made[1]["failure"]
    assert (failure["stage"], failure["error"]) == ("process", "ProcessDied")
    assert "died 3 times, 1 of them with nothing but this row to do" in failure["message"]


@pytest.mark.parametrize("num_killers", [1, 2, 4])
def test_every_killer_of_a_unit_costs_one_more_death(log: TryMarks, num_killers: int):
    unit = [row(index, prompt=EXIT) for index in range(num_killers)] + [row(9)]
    made, deaths = until_it_lives(unit, DyingEngine(), log)
    assert deaths == 2 + num_killers
    assert [one["failure"] is None for one in made] == [False] * num_killers + [True]


def test_a_unit_that_lives_is_made_together_and_its_marks_go_with_its_commit(log: TryMarks):
    engine = DyingEngine()
    generate_unit(message(rows(3)), engine, log)
    assert engine.calls == [[0, 1, 2]]
    assert len(log.storage.list(f"attempts/{UNIT}", "")) == 1
    log.end(UNIT)
    assert list(log.storage.walk("attempts")) == []


def test_two_deaths_of_machines_change_nothing_for_a_unit(log: TryMarks):
    engine = DyingEngine()
    for _ in range(2):
        log.begin(UNIT)
    tries = log.begin(UNIT)
    assert tries.one_by_one
    log.end(UNIT)
    log.begin(UNIT)
    generate_unit(message(rows(3)), engine, log)
    assert engine.calls == [[0, 1, 2]]


def test_a_death_counts_if_its_run_went_on_after_it():
    marks = ["attempts/u/unit.run-1.aa", "attempts/u/row-k.run-1.bb"]
    assert tries_of(marks, "run-1").deaths_alone == {"k": 1}
    assert tries_of(marks, "run-2").deaths_alone == {}
    assert tries_of([*marks, "attempts/u/row-k.run-1.cc"], "run-2").deaths_alone == {"k": 1}
    assert tries_of(marks, "run-2").number == 2


def test_twenty_runs_that_were_killed_at_one_row_blame_nobody(log: TryMarks):
    unit = [row(0), row(1)]
    for number in range(20):
        killed = replace(log, run_id=f"killed-{number}")
        with pytest.raises(Death):
            generate_unit(message(unit), KilledEngine(), killed)
    rows_left = generate_unit(message(unit), DyingEngine(), log).rows.to_pylist()
    assert [one["failure"] for one in rows_left] == [None, None]


def test_a_row_that_kills_is_found_also_after_runs_that_were_killed(log: TryMarks):
    unit = [row(0), row(1, prompt=EXIT)]
    for number in range(5):
        with pytest.raises(Death):
            generate_unit(message(unit), DyingEngine(), replace(log, run_id=f"killed-{number}"))
    made, deaths = until_it_lives(unit, DyingEngine(), log)
    assert deaths == 1
    assert [one["failure"] is None for one in made] == [True, False]
