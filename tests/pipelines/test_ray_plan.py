"""A plan that Ray Data makes is the plan that is made in one process, row for row."""

import random
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import lora, row

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Row
from manifests.rows.stored_rows import StoredRows
from pipelines.planning import partitions
from pipelines.planning.pending import FAILURES, KEYS, Rules
from pipelines.planning.plan import Plan, PlanCounts
from pipelines.planning.plan_units import plan_tables

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

BASE_MASKS = SamplerConfig(gate_base_steps=10, gate_mask_source="base")
SETS = [("cat",), ("dog",), ("cat", "dog"), ("fox", "dog"), ()]


def manifest_of(chance: random.Random, num_rows: int) -> list[Row]:
    return [
        row(
            chance.randrange(num_rows),
            loras=tuple(map(lora, chance.choice(SETS))),
            method=chance.choice(["clora", "merge", "clora-gated"]),
            sampler=chance.choice([SamplerConfig(), BASE_MASKS]),
        )
        for _ in range(num_rows)
    ]


def described(plan: Plan) -> dict[str, Any]:
    units = {
        unit["unit_id"]: [(one["key"], one["row_id"], one["attempt"]) for one in unit["rows"]]
        for unit in plan.units.to_pylist()
    }
    counts = {name: getattr(plan, name) for name in vars(PlanCounts())}
    return {"units": units, "uses": plan.uses, "num_rows": plan.num_rows} | counts


def test_a_manifest_that_is_made_has_an_empty_plan():
    from pipelines.distributed.plan import plan_on_ray
    from pipelines.distributed.rows import to_cluster

    manifest = manifest_of(random.Random(3), 20)
    plan = plan_on_ray(
        to_cluster(StoredRows.of(manifest).tables()),
        made=[pa.table({"key": [one.key for one in manifest]}, schema=KEYS)],
        failures=FAILURES.empty_table(),
        rules=Rules(attempts=2),
        rows_per_unit=3,
        abandoned=frozenset(),
    )
    assert (plan.num_units, plan.num_rows, plan.num_manifest_rows) == (0, 0, 20)
    assert plan.num_already_made == len({one.key for one in manifest})


@pytest.mark.parametrize(("seed", "num_rows"), [(0, 400), (1, 90), (2, 1)])
def test_ray_data_plans_what_one_process_plans(
    monkeypatch: pytest.MonkeyPatch, seed: int, num_rows: int
):
    from pipelines.distributed import plan as ray_plan
    from pipelines.distributed.rows import to_cluster

    chance = random.Random(seed)
    manifest = manifest_of(chance, num_rows)
    keys = sorted({one.key for one in manifest})
    made = chance.sample(keys, len(keys) // 4)
    failed = chance.sample([key for key in keys if key not in made], len(keys) // 4)
    arguments: dict[str, Any] = {
        "made": [pa.table({"key": made}, schema=KEYS)],
        "failures": pa.table(
            {
                "key": failed,
                "attempt": [chance.choice([1, 2]) for _ in failed],
                "unit_id": [chance.choice("uv") for _ in failed],
            },
            schema=FAILURES,
        ),
        "rules": Rules(attempts=2),
        "rows_per_unit": 3,
        "abandoned": frozenset(),
    }
    rows = StoredRows.of(manifest)
    whole = plan_tables(rows, **arguments)
    for size in (ray_plan, partitions):
        monkeypatch.setattr(size, "num_partitions", lambda count: 1 + count // 40)
    monkeypatch.setattr(ray_plan, "SAMPLE_STEP", 5)
    tables = [
        table.slice(start, 70) for table in rows.tables() for start in range(0, len(table), 70)
    ]
    plan = ray_plan.plan_on_ray(to_cluster(tables), **arguments)
    assert described(plan) == described(whole)
