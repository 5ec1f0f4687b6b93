"""When a graph begins, what it begins with, and when it ends; without Ray."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from engine_kit import ON_ONE_CPU, FakeModelHostSource, rows

from pipelines.planning.plan import Plan
from pipelines.planning.plan_units import plan_units
from pipelines.session.shares import Shares
from pipelines.storage.error import StorageError
from pipelines.units.message import UnitFacts
from pipelines.units.receipts import Receipt

TWO_ACTORS = replace(ON_ONE_CPU, num_generators=2, max_generators=2)


@dataclass
class Graphs:
    """Stands for Ray: graphs that give receipts of what is put up.

    Attributes:
        begun: The tickets that each graph began with.
        put_up: The phases on boards: their number of tickets, and whether they are the last.
        num_done: Receipts that a board was told of.
        num_ended: Graphs that ended.
        num_boards: Boards that were started and not ended.
        facts: Of units, by their number in the run.
    """

    begun: list[str] = field(default_factory=list[str])
    put_up: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])
    num_done: int = 0
    num_ended: int = 0
    num_boards: int = 0
    facts: dict[int, UnitFacts | Exception] = field(default_factory=dict)
    _number: int = 0
    _is_last: bool = False

    def begin(self, tickets: str, num_known: int | None) -> Generator[Receipt]:
        self.begun.append(tickets)
        try:
            while True:
                is_last = num_known is not None or self._is_last
                for _ in range(self.put_up[-1][0] if num_known is None else num_known):
                    facts = self.facts.get(self._number, UnitFacts())
                    self._number += 1
                    if isinstance(facts, Exception):
                        raise facts
                    yield Receipt(unit_id="unit", committed=True, rows=(), facts=facts)
                if is_last:
                    return
        finally:
            self.num_ended += 1

    def note_phase(self, _board: Any, _work: Any, tickets: Any, *, is_last: bool) -> None:
        self.put_up.append((tickets.number, is_last))
        self._is_last = is_last

    def start_board(self) -> Any:
        self.num_boards += 1

        def done() -> None:
            self.num_done += 1

        return SimpleNamespace(done=SimpleNamespace(remote=done))

    def end_board(self, _board: Any) -> None:
        self.num_boards -= 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, ray_token: Any) -> Graphs:  # noqa: ARG001
    from pipelines.stages import graph

    made = Graphs()

    def run(_: Any, tickets: tuple[str, int | None], *_arguments: Any) -> Generator[Receipt]:
        return made.begin(*tickets)

    monkeypatch.setattr(graph.Engine, "_run", run)
    monkeypatch.setattr(graph, "tickets_of_one_phase", lambda number: ("known", number))
    monkeypatch.setattr(graph, "tickets_of_phases", lambda _: ("waiting", None))
    monkeypatch.setattr(graph, "start_board", made.start_board)
    monkeypatch.setattr(graph, "put_up", made.note_phase)
    monkeypatch.setattr(graph.ray, "kill", made.end_board)
    return made


def engine(shares: Shares = ON_ONE_CPU) -> Any:
    from pipelines.stages.graph import Engine

    return Engine(load_model_host=FakeModelHostSource(), load_scorer=None, shares=shares)


def units(number: int) -> Plan:
    return plan_units(rows(number), made=(), failed={}, rows_per_unit=1, attempts=3)


WORK: Any = None
FUSIONS: Any = SimpleNamespace(fusions=("a", "b"))


def test_one_phase_of_one_actor_needs_no_board(graphs: Graphs):
    with engine() as made:
        assert len(list(made.make_units(units(3), WORK, is_last=True))) == 3
    assert (graphs.begun, graphs.put_up, graphs.num_ended) == (["known"], [], 1)


def test_one_phase_of_several_actors_has_a_board_to_deal_and_all_its_tickets(graphs: Graphs):
    with engine(TWO_ACTORS) as made:
        assert len(list(made.make_units(units(3), WORK, is_last=True))) == 3
        assert graphs.num_boards == 0
    assert (graphs.begun, graphs.put_up, graphs.num_ended) == (["known"], [(3, True)], 1)


def test_three_phases_are_one_graph_whose_board_hears_of_small_phases_alone(graphs: Graphs):
    with engine(TWO_ACTORS) as made:
        assert len(list(made.make_units(units(2), WORK))) == 2
        assert graphs.num_done == 2
        assert len(list(made.make_fusions(FUSIONS))) == 2
        assert graphs.num_done == 4
        assert (graphs.num_ended, graphs.num_boards) == (0, 1)
        assert len(list(made.make_units(units(9), WORK, is_last=True))) == 9
        assert graphs.num_done == 4
        assert (graphs.num_ended, graphs.num_boards) == (1, 0)
    assert graphs.begun == ["waiting"]
    assert graphs.put_up == [(2, False), (2, False), (9, True)]


def test_a_run_that_has_to_wait_for_another_one_ends_its_graph_and_begins_another(graphs: Graphs):
    graphs.facts[0] = UnitFacts(held_by="other")
    with engine() as made:
        assert len(list(made.make_units(units(2), WORK))) == 2
        assert (graphs.num_ended, graphs.num_boards) == (1, 0)
        list(made.make_units(units(1), WORK))
        assert (graphs.num_ended, graphs.num_boards) == (1, 1)
        list(made.make_units(units(5), WORK, is_last=True))
    assert graphs.begun == ["waiting", "waiting"]


def test_a_graph_ends_at_once_when_a_stage_raises_or_nobody_wants_the_rest(graphs: Graphs):
    graphs.facts[1] = StorageError("the store is away")
    with engine() as made:
        with pytest.raises(StorageError, match="is away"):
            list(made.make_units(units(2), WORK))
        assert (graphs.num_ended, graphs.num_boards) == (1, 0)
        with closing(made.make_units(units(2), WORK)) as receipts:
            next(receipts)
        assert (graphs.num_ended, graphs.num_boards) == (2, 0)


def test_a_graph_that_waits_for_a_phase_that_never_comes_ends_with_the_run(graphs: Graphs):
    with engine() as made:
        list(made.make_units(units(2), WORK))
        assert graphs.num_ended == 0
    assert (graphs.num_ended, graphs.num_boards) == (1, 0)


def test_nothing_to_make_begins_nothing(graphs: Graphs):
    with engine() as made:
        assert list(made.make_fusions(SimpleNamespace(fusions=()))) == []
    assert graphs.begun == []
