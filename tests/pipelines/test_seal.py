"""Workers of a run that was taken for dead cannot spoil the next one, whenever they wake up."""

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_kit import NOW, FakeScorer, generated, lora, request, row, store
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_kit import put_unit

from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from manifests.tables import spool
from pipelines import run_plan
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import acquire
from pipelines.leases.lease_record import latest_lease
from pipelines.ledger import update_index
from pipelines.ledger.index_files import INDEX_FOLDER
from pipelines.ledger.ledger import read_ledger
from pipelines.planning import partitions
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import write_plan
from pipelines.request import RunRequest
from pipelines.run_plan import Planned, plan_rows, sealed_plan
from pipelines.session.resources import Resources
from pipelines.stages.commit import commit_unit
from pipelines.stages.score import score_rows
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import rows_name
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.receipts import Phase

TIMES = LeaseTimes(beat_s=1000.0)
SETS = [("cat", "dog"), ("cat",), ("fox", "dog")]

INDEX_ONLY = ["left", "missing", "written", "damaged", "cut"]
"""What becomes of the index; ``left`` after ``written`` is one that later units are not in."""
UNITS_TOO = [*INDEX_ONLY, "units set aside", "units deleted"]
"""And the index says of those units what they were before."""

Choose = Callable[[Sequence[str]], set[str]]
"""Returns some of the values."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one of two runs is asked for."""

    seeds: Sequence[int]
    rows_per_unit: int

    @property
    def rows(self) -> list[Row]:
        return [
            row(seed, loras=tuple(lora(name) for name in SETS[seed % len(SETS)]))
            for seed in self.seeds
        ]

    def request(self, out: Path) -> RunRequest:
        return request(out, self.rows, resources=Resources(rows_per_unit=self.rows_per_unit))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are indexed however few they are, and everything is in many partitions on disk."""
    monkeypatch.setattr(update_index, "MIN_UNITS", 1)
    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 3)
    monkeypatch.setattr(spool, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(spool, "MIN_PIECE_BYTES", 0)
    monkeypatch.setattr(os, "fsync", lambda _file: None)


def start(request: RunRequest, run_id: str, plan: Plan) -> None:
    """Claim and plan, as a run does before its first unit; and leave, as one that is killed."""
    with acquire(request.storage, run_id, times=TIMES, note=print):
        write_plan(request.storage, run_id, Phase.IMAGES, plan)


def work(storage: Storage, plan: Plan, manifest: list[Row], unit_ids: set[str]) -> None:
    """Make and commit units of a plan, as a worker that asks nobody."""
    by_key = {one.key: one for one in manifest}
    for unit in plan.units.to_pylist():
        if unit["unit_id"] in unit_ids:
            rows = generated([by_key[member["key"]] for member in unit["rows"]])
            scored = score_rows(rows, FakeScorer(), {})
            message = UnitMessage(unit_id=unit["unit_id"], rows=scored, facts=UnitFacts())
            commit_unit(message, store(storage), now=NOW)


def change(storage: LocalStorage, state: str, choose: Choose) -> None:
    """Bring the index, and perhaps units, into a state."""
    if state == "left":
        return
    if state == "missing":
        delete_indexes(storage)
        return
    ledger = update_index.update_index(read_ledger(storage))
    assert not ledger.read.num_rows
    for name in storage.list(INDEX_FOLDER, ""):
        content = storage.read(name)
        if state == "damaged":
            middle = len(content) // 3
            content = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
            storage.put(name, content)
        elif state == "cut":
            storage.put(name, content[: len(content) // 2])
    if state.startswith("units"):
        for unit_id in choose(sorted(ledger.unit_ids - ledger.abandoned)):
            if state == "units deleted":
                storage.delete(rows_name(unit_id))
            else:
                put_unit(storage, unit_id, [], is_abandoned=True)


def delete_indexes(storage: LocalStorage) -> None:
    for name in storage.list(INDEX_FOLDER, ""):
        storage.delete(name)


def check_takeover(out: Path, old: Side, new: Side, states: Sequence[str], choose: Choose) -> None:
    """Let a run take over from one that was killed, whose worker wakes up at any time.

    Args:
        out: The output, empty.
        old: The run that was killed.
        new: The one that takes over.
        states: What becomes of the index while the old run works, before the new one looks, and
            while it plans.
        choose: Says which units the worker commits when.
    """
    while_working, before_looking, while_planning = states
    old_asked, new_asked = old.request(out), new.request(out)
    storage = LocalStorage(out)
    old_plan = plan_rows(old_asked, read_ledger(storage))
    units = sorted(old_plan.unit_ids)
    start(old_asked, "old", old_plan)
    work(storage, old_plan, old.rows, choose(units))
    change(storage, while_working, choose)
    work(storage, old_plan, old.rows, choose(units))
    change(storage, before_looking, choose)

    seen, ledger = latest_lease(storage), read_ledger(storage)
    change(storage, while_planning, choose)
    plan = plan_rows(new_asked, ledger)
    work(storage, old_plan, old.rows, choose(units))
    with acquire(storage, "new", times=TIMES, note=print) as lease:
        planned = Planned(ledger=ledger, plan=plan)
        plan = sealed_plan(new_asked, lease, "new", planned, seen, print).plan
        work(storage, old_plan, old.rows, choose(units))
        work(storage, plan, new.rows, set(plan.unit_ids))
    work(storage, old_plan, old.rows, set(units))

    read_by_index = read_ledger(storage).made
    delete_indexes(storage)
    after = read_ledger(storage)
    assert after.made == read_by_index
    assert after.num_doubled == 0
    assert {one.key for one in new.rows} <= after.made
    # What was taken from the old run's units can be made when it is asked for again.
    again = plan_rows(old_asked, after)
    assert not after.unit_ids & set(again.unit_ids)
    assert {one.key for one in old.rows} <= after.made | again.keys()


def chosen_by(chance: random.Random) -> Choose:
    """Return what draws about every third value; sets that Hypothesis draws are mostly empty."""
    return lambda values: {value for value in values if chance.random() < 0.35}


sides = st.builds(
    lambda seeds, size: Side(seeds=sorted(seeds), rows_per_unit=size),
    st.sets(st.integers(0, 9), min_size=3),
    st.integers(1, 4),
)
units_too = st.sampled_from(UNITS_TOO[-2:]) | st.sampled_from(UNITS_TOO)
index_states = st.tuples(units_too, units_too, st.sampled_from(INDEX_ONLY))


@settings(max_examples=20)
@given(sides, sides, index_states, st.integers(0, 2**32))
def test_no_row_is_doubled_when_the_manifest_and_the_units_change_under_a_stopped_worker(
    old: Side, new: Side, states: tuple[str, ...], seed: int
):
    with tempfile.TemporaryDirectory() as folder:
        check_takeover(Path(folder), old, new, states, chosen_by(random.Random(seed)))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_doubled_when_ray_data_plans_both_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
):
    from pipelines.distributed.plan import plan_on_ray
    from pipelines.distributed.rows import to_cluster

    def planned(rows: StoredRows, **more: Any) -> Plan:
        chunks = [t.slice(at, 10) for t in rows.tables() for at in range(0, len(t), 10)]
        return plan_on_ray(to_cluster(chunks), **more)

    chance = random.Random(seed)
    monkeypatch.setattr(run_plan, "plan_tables", planned)
    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 12)
    old, new = (
        Side(seeds=chance.sample(range(50), 30), rows_per_unit=chance.randint(1, 4))
        for _ in range(2)
    )
    states = [chance.choice(some) for some in (UNITS_TOO, UNITS_TOO, INDEX_ONLY)]
    check_takeover(tmp_path, old, new, states, chosen_by(chance))
