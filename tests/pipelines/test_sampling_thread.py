"""An actor has two units at a time, one is sampled, and it takes tickets of any phase."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from engine_kit import ON_ONE_CPU, ComposingHost, FakeModelHost, FakeScorer, lora, row, rows, store

from clora_core.recipe.fusion import fusion_of
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.ledger.tries import TryMarks
from pipelines.planning.plan_files import PlanReader, write_plan
from pipelines.planning.plan_units import plan_units
from pipelines.stages.finish import FinishUnits
from pipelines.stages.fuse_stage import CommitFused
from pipelines.stages.fused_work import References
from pipelines.stages.model_actor import ModelActor, tickets_each
from pipelines.stages.phases import FusionPhase, OnePhase, PhaseWork, UnitPhase
from pipelines.storage.local import LocalStorage
from pipelines.units.message import UnitMessage, read_messages
from pipelines.units.receipts import Phase, read_receipts


@pytest.mark.parametrize(
    ("num_units", "actors", "max_actors", "each"),
    [(100, 1, 1, 4), (4, 2, 2, 2), (5, 4, 4, 2), (1, 1, 1, 1), (4, 2, 3, 4)],
)
def test_an_actor_has_tickets_waiting_but_leaves_a_small_run_s_to_those_that_start_later(
    num_units: int, actors: int, max_actors: int, each: int
):
    shares = replace(ON_ONE_CPU, num_generators=actors, max_generators=max_actors)
    assert tickets_each(num_units, shares) == each


def ticket(number: int, phase: int = 0) -> pa.Table:
    return pa.table({"phase": [phase], "ticket": [number]})


class WatchedPlan(PlanReader):
    """Says when it read the unit of ticket 1."""

    def __init__(self, storage: LocalStorage, brought: threading.Event) -> None:
        super().__init__(storage=storage, run_id="run-1", phase=Phase.IMAGES)
        self._brought = brought

    def read(self, part: int, place: int) -> UnitMessage:
        if place == 1:
            self._brought.set()
        return super().read(part, place)


def unit_phase(
    folder: Path, num_units: int, brought: threading.Event | None = None
) -> tuple[UnitPhase, OnePhase]:
    """Return the work of units of one row each whose plan is in a folder, and what deals them."""
    storage = LocalStorage(folder)
    plan = plan_units(rows(num_units), made=(), failed={}, rows_per_unit=1, attempts=3)
    write_plan(storage, "run-1", Phase.IMAGES, plan)
    work = UnitPhase(
        plan=WatchedPlan(storage, brought or threading.Event()),
        load_centroids=dict,
        store=store(storage),
    )
    return work, OnePhase(work, plan.runs)


def test_a_unit_is_brought_while_another_is_sampled_and_is_not_begun_by_that(tmp_path: Path):
    marks = TryMarks(storage=LocalStorage(tmp_path), run_id="run-1")
    brought, threads, marked = threading.Event(), set[str](), list[int]()

    def compose(rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        threads.add(threading.current_thread().name)
        assert brought.wait(20.0)
        if not marked:
            time.sleep(0.1)  # for the other to come as far as it can
        marked.append(len(list(marks.storage.walk("attempts"))))
        return FakeModelHost().compose(rows)

    _, phases = unit_phase(tmp_path, 2, brought)
    actor = ModelActor(lambda: ComposingHost(compose), phases)
    with ThreadPoolExecutor(2) as ray:
        coming = [ray.submit(actor, ticket(number)) for number in (0, 1)]
        made = [read_messages(one.result())[0] for one in coming]
    assert len({message.unit_id for message in made}) == 2
    assert all(message.rows["failure"].null_count == 1 for message in made)
    assert len(threads) == 1
    assert marked == [1, 2]


class Asked:
    """Phases by number that count how often each is asked for."""

    def __init__(self, works: Sequence[PhaseWork], deal: Callable[[int, int], tuple[int, int]]):
        self._works = works
        self.asked: list[int] = []
        self.place_of = deal
        self.num_arrived = 0

    def work(self, phase: int, /) -> PhaseWork:
        self.asked.append(phase)
        return self._works[phase]

    def arrive(self) -> None:
        self.num_arrived += 1


def test_actors_take_tickets_of_phases_one_after_another_with_one_model_and_one_scorer(
    tmp_path: Path,
):
    work, one = unit_phase(tmp_path / "out", 3)
    fused = row(9, method="mix-of-show", loras=(lora("cat"), lora("dog")))
    fusion = fusion_of(fused, dtype="float32")
    assert fusion is not None
    into = CommitFused(
        storage=LocalStorage(tmp_path / "fused"),
        run_id="run-1",
        fence=None,
        references=References(storage=None),
    )
    phases = Asked([FusionPhase(fusions=(fusion,), into=into), work], one.place_of)
    hosts, scorers = list[FakeModelHost](), list[FakeScorer]()

    def load_host() -> FakeModelHost:
        hosts.append(FakeModelHost())
        return hosts[-1]

    def load_scorer() -> FakeScorer:
        scorers.append(FakeScorer())
        return scorers[-1]

    actor = ModelActor(load_host, phases)
    finish = FinishUnits(load_scorer, phases)
    tickets = [ticket(0, phase=0), *(ticket(number, phase=1) for number in range(3))]
    made = [next(read_receipts(finish(actor(each)))) for each in tickets]
    assert phases.asked == [0, 0, 1, 1]
    assert phases.num_arrived == 1
    assert [receipt.num_made for receipt in made] == [1, 1, 1, 1]
    assert made[0].unit_id == fusion.key
    assert made[0].rows[0].unet_evaluations == 3
    assert into.is_done(fusion.key)
    assert len(hosts) == len(scorers) == 1
    assert [receipt.facts.model_loads for receipt in made] == [1, 0, 0, 0]
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 3


def test_an_actor_that_is_terminated_takes_back_the_marks_of_the_phase_it_is_in(tmp_path: Path):
    _, phases = unit_phase(tmp_path, 1)
    marks = TryMarks(storage=LocalStorage(tmp_path), run_id="run-1")
    seen = list[int]()

    def compose(rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        seen.append(len(list(marks.storage.walk("attempts"))))
        actor.withdraw()
        seen.append(len(list(marks.storage.walk("attempts"))))
        return FakeModelHost().compose(rows)

    actor = ModelActor(lambda: ComposingHost(compose), phases)
    actor.withdraw()  # before its first ticket there is nothing
    actor(ticket(0))
    assert seen == [1, 0]
