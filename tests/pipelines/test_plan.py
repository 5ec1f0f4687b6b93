import random
from collections import Counter
from itertools import pairwise

import pyarrow as pa
import pytest
from engine_kit import SAMPLER, lora, planned_table, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Row
from manifests.tables import spool
from pipelines.ledger.ledger import FailedRow
from pipelines.planning import partitions
from pipelines.planning.plan import Plan
from pipelines.planning.plan_units import plan_units
from pipelines.units.schemas import PLAN

OTHER_SAMPLER = SamplerConfig(num_steps=60)
SUBJECTS = {"tabby": "cat"}

manifest_rows = st.builds(
    lambda seed, names, method, width, sampler, model: row(
        seed,
        base_model_digest=model,
        loras=tuple(lora(name, subject=SUBJECTS.get(name, name)) for name in names),
        method=method,
        width=width,
        sampler=sampler,
    ),
    st.integers(0, 40),
    st.sampled_from(
        [("cat",), ("dog",), ("cat", "dog"), ("tabby", "dog"), ("cat", "dog", "fox"), ()]
    ),
    st.sampled_from(["clora", "merge", "freefuse"]),
    st.sampled_from([8, 16]),
    st.sampled_from([SAMPLER, OTHER_SAMPLER]),
    st.sampled_from(["m1", "m2", "m3"]),
)
manifests = st.lists(manifest_rows, max_size=60)


def plan(
    manifest: list[Row],
    *,
    made: frozenset[str] = frozenset(),
    failed: dict[str, FailedRow] | None = None,
    rows_per_unit: int = 4,
    attempts: int | None = 3,
) -> Plan:
    return plan_units(
        manifest,
        made=made,
        failed=failed or {},
        rows_per_unit=rows_per_unit,
        attempts=attempts,
    )


def units(of: Plan) -> dict[str, list[tuple[str, int]]]:
    """Return the (key, attempt) pairs of each unit."""
    return {
        unit["unit_id"]: [(member["key"], member["attempt"]) for member in unit["rows"]]
        for unit in of.units.to_pylist()
    }


@given(manifests, st.integers(1, 7))
def test_every_key_is_in_exactly_one_unit(manifest: list[Row], rows_per_unit: int):
    made = plan(manifest, rows_per_unit=rows_per_unit)
    counts = Counter(key for unit in units(made).values() for key, _ in unit)
    assert counts == Counter({one.key for one in manifest})
    assert made.num_rows + made.num_duplicates == made.num_manifest_rows == len(manifest)


@given(manifests, st.randoms(use_true_random=False))
def test_the_order_of_the_manifest_does_not_change_the_units(
    manifest: list[Row], shuffler: random.Random
):
    shuffled = list(manifest)
    shuffler.shuffle(shuffled)
    assert units(plan(manifest)) == units(plan(shuffled))


@given(manifests, st.integers(1, 7))
def test_a_unit_holds_rows_that_one_batch_can_make(manifest: list[Row], rows_per_unit: int):
    for unit in plan(manifest, rows_per_unit=rows_per_unit).units.to_pylist():
        kinds = {
            (
                member["base_model_digest"],
                member["method"],
                member["width"],
                member["sampler_json"],
                len(member["loras"]),
            )
            for member in unit["rows"]
        }
        assert len(kinds) == 1
        assert unit["num_rows"] == len(unit["rows"]) <= rows_per_unit


@settings(max_examples=60)
@given(manifests, st.integers(1, 5), st.sampled_from([1, 2, 7, 10_000]), st.data())
def test_a_resumed_plan_has_the_units_that_were_not_committed_and_no_others_of_fresh_rows(
    manifest: list[Row], rows_per_unit: int, rows_per_partition: int, data: st.DataObject
):
    """What lets a worker of a killed run and one of the next never commit a key twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "ROWS_PER_PARTITION", rows_per_partition)
        patch.setattr(spool, "MAX_HELD_BYTES", min(1000 * rows_per_partition, 10**6))
        patch.setattr(spool, "MIN_PIECE_BYTES", 0)
        check_resumed(manifest, rows_per_unit, data)


def check_resumed(manifest: list[Row], rows_per_unit: int, data: st.DataObject) -> None:
    made: set[str] = set()
    failed: dict[str, FailedRow] = {}
    pending = units(plan(manifest, rows_per_unit=rows_per_unit))
    for _ in range(3):
        committed = data.draw(st.sets(st.sampled_from(sorted(pending)))) if pending else set()
        for unit_id in sorted(committed):
            for key, attempt in pending[unit_id]:
                if data.draw(st.booleans()):
                    made.add(key)
                else:
                    failed[key] = FailedRow(attempts=attempt, unit_id=unit_id)
        resumed = plan(
            manifest,
            made=frozenset(made),
            failed={key: value for key, value in failed.items() if key not in made},
            rows_per_unit=rows_per_unit,
            attempts=None,
        )
        left = {unit_id: unit for unit_id, unit in pending.items() if unit_id not in committed}
        now = units(resumed)
        assert left.items() <= now.items()
        for unit_id in now.keys() - left.keys():
            together = {failed[key].unit_id for key, _ in now[unit_id]}
            assert len(together) == 1
            assert together <= committed
        pending = now


def test_the_first_of_equal_rows_wins_and_the_others_are_counted():
    first = row(1, row_id="first")
    again = row(1, row_id="again")
    made = plan([first, again, row(2)])
    ids = {member["row_id"] for unit in made.units.to_pylist() for member in unit["rows"]}
    assert ids == {"first", "row-2"}
    assert made.num_duplicates == 1


def test_committed_rows_are_not_planned_again():
    manifest = rows(5)
    made = plan(manifest, made=frozenset({manifest[0].key, manifest[3].key, "of another manifest"}))
    assert made.num_rows == 3
    assert made.num_already_made == 2


def test_a_row_that_failed_too_often_is_left_alone_until_all_are_asked_for():
    manifest = rows(2)
    failed = {manifest[0].key: FailedRow(attempts=3, unit_id="u")}
    assert plan(manifest, failed=failed).quarantined == (manifest[0].key,)
    assert plan(manifest, failed=failed).num_rows == 1
    again = plan(manifest, failed=failed, attempts=None)
    assert again.quarantined == ()
    assert (manifest[0].key, 4) in [pair for unit in units(again).values() for pair in unit]


def test_a_row_tried_again_is_another_unit():
    manifest = rows(1)
    again = plan(manifest, failed={manifest[0].key: FailedRow(attempts=1, unit_id="u")})
    assert set(units(plan(manifest))) != set(units(again))


def test_units_are_dealt_out_by_lora_set_whatever_their_method():
    manifest = [
        row(seed, loras=(lora(name),), method=method)
        for seed in range(4)
        for name in ("cat", "dog", "fox")
        for method in ("clora", "merge")
    ]
    sets = [unit["lora_set"] for unit in plan(manifest).units.to_pylist()]
    switches = sum(one != other for one, other in pairwise(sets))
    assert switches == 2


@given(manifests, st.integers(1, 7))
def test_units_of_one_base_model_are_dealt_out_together(manifest: list[Row], rows_per_unit: int):
    """So an actor, which takes units in this order, loads each base model once at most."""
    dealt = [
        unit["rows"][0]["base_model_digest"]
        for unit in plan(manifest, rows_per_unit=rows_per_unit).units.to_pylist()
    ]
    assert dealt == sorted(dealt)


def test_what_failed_before_comes_last():
    manifest = rows(8)
    failed = {one.key: FailedRow(attempts=1, unit_id="u") for one in manifest[:2]}
    attempts = [unit["attempt"] for unit in plan(manifest, failed=failed).units.to_pylist()]
    assert attempts == sorted(attempts)


@pytest.mark.parametrize("manifest", [[], rows(3)])
def test_a_plan_with_nothing_to_do_has_an_empty_table_of_the_right_types(
    manifest: list[Row],
):
    done = plan(manifest, made=frozenset(one.key for one in manifest))
    assert done.units.schema == PLAN
    assert done.num_rows == 0


def test_the_plan_keeps_every_field_of_a_row():
    manifest = [row(1, carried_json='{"shelf":"A"}', negative_prompt="blur")]
    (unit,) = plan(manifest).units.to_pylist()
    assert unit["rows"] == planned_table(manifest).to_pylist()
    assert pa.Table.from_pylist([unit], schema=PLAN).num_rows == 1
