"""A plan that Ray Data makes is the plan that is made in one process, row for row."""

import errno
import logging
import random
from dataclasses import replace
from pathlib import Path
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
from pipelines.planning.plan_files import PlanReader, planned_keys, write_plan
from pipelines.planning.plan_units import plan_tables
from pipelines.storage.local import LocalStorage
from pipelines.units.receipts import Phase

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


def _raise(error: Exception) -> None:
    raise error


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_that_hides_itself_in_rays_logs_is_a_sentence(number: int):
    from pipelines.distributed.session import ray_data
    from pipelines.session.cluster_error import ClusterError

    with pytest.raises(ClusterError, match="set TMPDIR"), ray_data("planned"):
        raise OSError(number, "No space left on device")
    assert logging.raiseExceptions


def test_another_error_of_the_system_is_raised_as_it_is():
    from pipelines.distributed.session import ray_data

    with pytest.raises(PermissionError), ray_data("planned"):
        raise PermissionError(errno.EACCES, "Permission denied")


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


@pytest.mark.parametrize("num_rows", [0, 50])
def test_ray_data_plans_nothing_where_nothing_is_to_be_made(
    monkeypatch: pytest.MonkeyPatch, num_rows: int
):
    from pipelines.distributed import plan as ray_plan
    from pipelines.distributed.rows import to_cluster

    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 10)
    rows = StoredRows.of(row(seed) for seed in range(num_rows))
    plan = ray_plan.plan_on_ray(
        to_cluster(rows.tables()),
        made=[pa.table({"key": [one.key for one in rows]}, schema=KEYS)],
        failures=FAILURES.empty_table(),
        rules=Rules(attempts=2),
        rows_per_unit=3,
        abandoned=frozenset(),
    )
    assert (plan.num_units, plan.num_rows, plan.units.num_rows) == (0, 0, 0)
    assert (plan.num_manifest_rows, plan.num_already_made) == (num_rows, num_rows)


def test_ray_data_plans_what_failed_or_is_new_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of most partitions nothing is left, and rows to be made are a few of a chunk."""
    from ray import data

    from pipelines.distributed import plan as ray_plan
    from pipelines.distributed.messages import message, messages
    from pipelines.distributed.rows import to_cluster

    chance = random.Random(4)
    manifest = manifest_of(chance, 120)
    keys = sorted({one.key for one in manifest})
    failed, new, made = keys[::9], keys[1::9], keys[2::4]
    failures = {"key": failed, "attempt": [1] * len(failed), "unit_id": ["u"] * len(failed)}
    arguments: dict[str, Any] = {
        "made": [pa.table({"key": made}, schema=KEYS)],
        "failures": pa.table(failures, schema=FAILURES),
        "rules": Rules(attempts=2, only_failed=True),
        "rows_per_unit": 4,
        "abandoned": frozenset(),
        "asked_before": [pa.table({"key": sorted({*keys} - {*new})}, schema=KEYS)],
    }
    rows = StoredRows.of(manifest)
    whole = plan_tables(rows, **arguments)
    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 9)
    (table,) = rows.tables()
    chunks = [table.slice(start, 25) for start in range(0, len(table), 25)]
    on_cluster = to_cluster(chunks)
    # As a check leaves a stretch of the manifest without a good row.
    others = data.from_arrow([messages([message(at, "other")]) for at in range(3)])
    on_cluster = replace(on_cluster, checked=others.union(on_cluster.checked).materialize())
    plan = ray_plan.plan_on_ray(on_cluster, **arguments)
    read = [table.drop_columns("place") for table in on_cluster.tables()]
    assert pa.concat_tables(read).to_pylist() == table.drop_columns("place").to_pylist()
    assert described(plan) == described(whole)
    assert plan.keys() == {*failed, *new} - {*made}

    storage = LocalStorage(tmp_path)
    write_plan(storage, "run", Phase.IMAGES, plan)
    written = list(planned_keys(storage, "run", Phase.IMAGES, skip=_raise))
    assert {key for found in written for key in found["key"].to_pylist()} == plan.keys()
    reader = PlanReader(storage=storage, run_id="run", phase=Phase.IMAGES)
    units = [
        reader.read(run.part, run.first + at) for run in plan.runs for at in range(run.num_units)
    ]
    assert {unit.unit_id: unit.rows["key"].to_pylist() for unit in units} == {
        unit["unit_id"]: [one["key"] for one in unit["rows"]] for unit in whole.units.to_pylist()
    }
