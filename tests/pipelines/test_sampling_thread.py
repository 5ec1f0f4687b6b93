"""An actor has two units at a time, and one is sampled."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from engine_kit import ComposingHost, FakeModelHost, planned_table, row

from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.ledger.tries import TryMarks
from pipelines.stages.generate import GenerateImages
from pipelines.storage.local import LocalStorage
from pipelines.units.message import UnitFacts, UnitMessage, read_messages


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
