"""A plan keeps few runs of units, and knows of each unit what it should."""

from itertools import groupby

import numpy as np
import pytest
from engine_kit import lora, row
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.row import Row
from manifests.tables import spool
from pipelines.ledger.ledger import FailedRow
from pipelines.planning import partitions, plan_units, unit_runs
from pipelines.planning.buckets import bucket_borders, sampled
from pipelines.planning.plan import Plan
from pipelines.stages.dealing import Dealer

manifests = st.lists(
    st.builds(
        lambda seed, name, model: row(seed, loras=(lora(name),), base_model_digest=model),
        st.integers(0, 9),
        st.sampled_from("abcdefgh"),
        st.sampled_from(["m1", "m2"]),
    ),
    max_size=60,
)


def plan(manifest: list[Row], failed: dict[str, FailedRow], rows_per_unit: int) -> Plan:
    return plan_units.plan_units(
        manifest, made=(), failed=failed, rows_per_unit=rows_per_unit, attempts=None
    )


@settings(max_examples=30)
@given(manifests, st.integers(1, 3), st.integers(3, 40), st.integers(1, 4), st.data())
def test_a_part_has_few_runs_and_every_unit_is_in_one(
    manifest: list[Row], rows_per_unit: int, rows_per_part: int, most: int, data: st.DataObject
):
    failed = {
        one.key: FailedRow(attempts=1, unit_id="u") for one in manifest if data.draw(st.booleans())
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "ROWS_PER_PARTITION", rows_per_part)
        patch.setattr(spool, "MAX_HELD_BYTES", 1000)
        patch.setattr(spool, "MIN_PIECE_BYTES", 0)
        exact = plan(manifest, failed, rows_per_unit)
        patch.setattr(unit_runs, "MAX_RUNS_PER_PART", most)
        few = plan(manifest, failed, rows_per_unit)

    num_spans = 4  # Of one attempt and base model, in a part.
    assert max((sum(r.part == part for r in few.runs) for part in few.part_numbers), default=0) <= (
        most + num_spans
    )
    assert few.units == exact.units
    assert few.num_units == exact.num_units == len(few.unit_ids)
    places = [(run.part, run.first + at) for run in few.runs for at in range(run.num_units)]
    assert sorted(places) == sorted(
        (run.part, run.first + at) for run in exact.runs for at in range(run.num_units)
    )
    dealer = Dealer(few.runs)
    assert [dealer.deal(ticket, "one") for ticket in range(few.num_units)] == places
    # All but the LoRAs is known of each, in the order of the dealing: attempts, base models.
    needs = list(few.needs())
    units = {
        place: unit
        for part in few.part_numbers
        for place, unit in zip(
            [place for place in sorted(places) if place[0] == part],
            few.only(_ids(few, part)).units.to_pylist(),
            strict=True,
        )
    }
    attempts = [units[place]["attempt"] for place in places]
    models = [units[place]["rows"][0]["base_model_digest"] for place in places]
    assert [need.attempt for need in needs] == attempts == sorted(attempts)
    assert all(model in need.files for model, need in zip(models, needs, strict=True))
    assert len(list(groupby(zip(attempts, models, strict=True)))) == len(
        set(zip(attempts, models, strict=True))
    )


@settings(max_examples=30)
@given(manifests, st.integers(1, 3), st.integers(1, 3), st.data())
def test_some_units_of_a_plan_are_a_plan_in_the_same_order(
    manifest: list[Row], rows_per_unit: int, most: int, data: st.DataObject
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "ROWS_PER_PARTITION", 7)
        patch.setattr(unit_runs, "MAX_RUNS_PER_PART", most)
        whole = plan(manifest, {}, rows_per_unit)
    ids = whole.unit_ids
    some = data.draw(st.sets(st.sampled_from(ids))) if ids else set[str]()
    fewer = {name for name in some if data.draw(st.booleans())}
    chosen = whole.only(some)
    assert chosen.units.to_pylist() == [u for u in whole.units.to_pylist() if u["unit_id"] in some]
    assert chosen.num_units == len(list(chosen.needs())) == len(some)
    assert chosen.num_rows == sum(unit["num_rows"] for unit in chosen.units.to_pylist())
    assert chosen.only(fewer).units == whole.only(fewer).units
    places = [(run.part, run.first + at) for run in whole.runs for at in range(run.num_units)]
    kept = [(run.part, run.first) for run in chosen.runs]
    assert kept == [place for place in places if place in set(kept)]


def test_units_of_a_manifest_in_which_every_row_has_a_set_of_its_own_are_few_runs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(unit_runs, "MAX_RUNS_PER_PART", 10)
    manifest = [row(seed, loras=(lora(f"lora {seed}"),)) for seed in range(100)]
    made = plan(manifest, {}, 2)
    assert made.num_units == 50
    assert len(made.runs) == 10


def test_a_grid_whose_period_is_the_step_of_the_samples_has_even_buckets():
    """Of 8 methods in turn, each eighth row is looked at."""
    methods = np.tile(np.array([f"method {number}" for number in range(8)]), 1000)
    places = sampled(len(methods), 8, seed=0)
    assert len(places) == 1000
    assert np.array_equal(places // 8, np.arange(1000))
    borders = bucket_borders(methods[places].tolist(), 8)
    assert borders == sorted(set(borders)) == [f"method {number}" for number in range(1, 8)]


@given(st.integers(0, 50), st.integers(1, 9))
def test_of_any_rows_some_are_sampled(num_rows: int, step: int):
    places = sampled(num_rows, step, seed=3)
    assert len(places) == -(-num_rows // step)
    assert all(0 <= place < num_rows for place in places)


def _ids(of: Plan, part: int) -> set[str]:
    return set(of.read_part(part)["unit_id"].to_pylist())
