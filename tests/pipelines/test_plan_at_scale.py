"""A plan made in many small pieces is the plan that is made in one."""

import pyarrow as pa
import pytest
from engine_kit import lora, row
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Row
from manifests.tables import spool
from pipelines.ledger.ledger import FailedRow
from pipelines.planning import partitions
from pipelines.planning.plan import Plan, PlanCounts
from pipelines.planning.plan_units import plan_units

BASE_MASKS = SamplerConfig(gate_base_steps=10, gate_mask_source="base")
SETS = [("cat",), ("dog",), ("cat", "dog"), ("fox", "dog"), ()]
manifest_rows = st.builds(
    lambda seed, names, method, sampler: row(
        seed, loras=tuple(map(lora, names)), method=method, sampler=sampler
    ),
    st.integers(0, 60),
    st.sampled_from(SETS),
    st.sampled_from(["clora", "merge", "clora-gated"]),
    st.sampled_from([SamplerConfig(), BASE_MASKS]),
)
manifests = st.lists(manifest_rows, max_size=60)


def units(plan: Plan) -> dict[str, list[tuple[str, str, int]]]:
    return {
        unit["unit_id"]: [(one["key"], one["row_id"], one["attempt"]) for one in unit["rows"]]
        for unit in plan.units.to_pylist()
    }


def counts(plan: Plan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in vars(PlanCounts())}


@settings(deadline=None, max_examples=60)
@given(manifests, st.integers(1, 7), st.integers(1, 9), st.data())
def test_units_do_not_depend_on_how_rows_are_dealt_into_partitions_and_buckets(
    manifest: list[Row], rows_per_unit: int, partition_rows: int, data: st.DataObject
):
    keys = sorted({one.key for one in manifest})
    made = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    failed = {
        key: FailedRow(
            attempts=data.draw(st.integers(1, 3)), unit_id=data.draw(st.sampled_from("uv"))
        )
        for key in keys
        if key not in made and data.draw(st.booleans())
    }

    def planned() -> Plan:
        return plan_units(
            manifest, made=made, failed=failed, rows_per_unit=rows_per_unit, attempts=2
        )

    whole = planned()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "ROWS_PER_PARTITION", partition_rows)
        patch.setattr(spool, "MAX_HELD_BYTES", 1000)
        patch.setattr(spool, "MIN_PIECE_BYTES", 0)
        pieces = planned()
    assert units(pieces) == units(whole)
    assert (pieces.num_rows, pieces.num_units) == (whole.num_rows, whole.num_units)
    assert counts(pieces) == counts(whole)
    assert pieces.uses == whole.uses
    assert sum(run.num_units for run in pieces.runs) == len(pieces.unit_ids)
    assert [run.needs.attempt for run in pieces.runs] == sorted(
        run.needs.attempt for run in pieces.runs
    )


def test_partitions_of_keys_are_about_as_large_as_each_other():
    rows = [row(seed) for seed in range(400)]
    numbers = partitions.partition_of(pa.array([one.key for one in rows]), 4)
    assert sorted(set(numbers.tolist())) == [0, 1, 2, 3]
    sizes = [int((numbers == number).sum()) for number in range(4)]
    assert max(sizes) < 2 * min(sizes)
