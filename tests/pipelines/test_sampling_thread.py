"""An actor has two units at a time, and one is sampled."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from engine_kit import ON_ONE_CPU, ComposingHost, FakeModelHost, planned_table, row

from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.ledger.tries import TryMarks
from pipelines.stages.generate import GenerateImages, tickets_each
from pipelines.storage.local import LocalStorage
from pipelines.units.message import UnitFacts, UnitMessage, read_messages


@pytest.mark.parametrize(
    ("num_units", "actors", "max_actors", "each"),
    [(100, 1, 1, 4), (4, 2, 2, 2), (5, 4, 4, 2), (1, 1, 1, 1), (4, 2, 3, 4)],
)
def test_an_actor_has_tickets_waiting_but_leaves_a_small_run_s_to_those_that_start_later(
    num_units: int, actors: int, max_actors: int, each: int
):
    shares = replace(ON_ONE_CPU, num_generators=actors, max_generators=max_actors)
    assert tickets_each(num_units, shares) == each


def unit_of(ticket: int) -> UnitMessage:
    return UnitMessage(
        unit_id=f"unit-{ticket}", rows=planned_table([row(ticket)]), facts=UnitFacts()
    )


def ticket(number: int) -> pa.Table:
    return pa.table({"ticket": [number]})


def test_a_unit_is_brought_while_another_is_sampled_and_is_not_begun_by_that(tmp_path: Path):
    marks = TryMarks(storage=LocalStorage(tmp_path), run_id="run")
    brought, threads, marked = threading.Event(), set[str](), list[list[str]]()

    def take(number: int) -> UnitMessage:
        if number == 1:
            brought.set()
        return unit_of(number)

    def compose(rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        threads.add(threading.current_thread().name)
        assert brought.wait(20.0)
        if rows[0].seed == 0:
            time.sleep(0.1)  # for the other to come as far as it can
        marked.append(sorted(name.split("/")[1] for name in marks.storage.walk("attempts")))
        return FakeModelHost().compose(rows)

    actor = GenerateImages(take, lambda: ComposingHost(compose), marks, None, None, None)
    with ThreadPoolExecutor(2) as ray:
        first = ray.submit(actor, ticket(0))
        second = ray.submit(actor, ticket(1))
        made = [read_messages(one.result())[0] for one in (first, second)]
    assert [message.unit_id for message in made] == ["unit-0", "unit-1"]
    assert all(message.rows["failure"].null_count == 1 for message in made)
    assert len(threads) == 1
    assert marked[-1] == ["unit-0", "unit-1"]
    assert marked[0] in (["unit-0"], ["unit-1"])
