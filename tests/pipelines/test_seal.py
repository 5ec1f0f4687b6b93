"""Workers of a run that was taken for dead cannot spoil the next one, whenever they wake up."""

import tempfile
from dataclasses import replace
from pathlib import Path

from engine_kit import NOW, FakeScorer, generated, request, row, store
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.row import Row
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import acquire
from pipelines.leases.lease_record import latest_lease
from pipelines.ledger.ledger import read_ledger
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import write_plan
from pipelines.request import RunRequest
from pipelines.run_plan import Planned, plan_rows, sealed_plan
from pipelines.session.resources import Resources
from pipelines.stages.commit import commit_unit
from pipelines.stages.score import score_rows
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.receipts import Phase

TIMES = LeaseTimes(beat_s=1000.0)


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


seeds = st.sets(st.integers(0, 11), min_size=1)


@settings(max_examples=40, deadline=None)
@given(seeds, seeds, st.integers(1, 4), st.integers(1, 4), st.data())
def test_no_row_is_doubled_when_the_manifest_and_the_units_change_under_a_stopped_worker(
    old_seeds: set[int], new_seeds: set[int], old_size: int, new_size: int, data: st.DataObject
):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        old_rows, new_rows = ([row(seed) for seed in sorted(s)] for s in (old_seeds, new_seeds))
        old = request(out, old_rows, resources=Resources(rows_per_unit=old_size))
        new = request(out, new_rows, resources=Resources(rows_per_unit=new_size))
        storage = LocalStorage(out)
        old_plan = plan_rows(old, read_ledger(storage))
        units = old_plan.units["unit_id"].to_pylist()
        before_kill, unseen, late = (
            data.draw(st.sets(st.sampled_from(units)), label=when)
            for when in ("before the kill", "while the new run plans", "late")
        )
        start(old, "old", old_plan)
        work(storage, old_plan, old_rows, before_kill)

        seen, ledger = latest_lease(storage), read_ledger(storage)
        plan = plan_rows(new, ledger)
        work(storage, old_plan, old_rows, unseen)
        with acquire(storage, "new", times=TIMES, note=print) as lease:
            planned = Planned(ledger=ledger, plan=plan)
            plan = sealed_plan(new, lease, "new", planned, seen, print).plan
            work(storage, old_plan, old_rows, late)
            work(storage, plan, new_rows, set(plan.units["unit_id"].to_pylist()))
        work(storage, old_plan, old_rows, set(units))

        after = read_ledger(storage)
        assert after.num_doubled == 0
        assert {one.key for one in new_rows} <= after.made
        # What was taken from the old run's units can be made when it is asked for again.
        again = plan_rows(replace(old, resources=Resources(rows_per_unit=old_size)), after)
        assert not after.unit_ids & set(again.units["unit_id"].to_pylist())
