"""A plan on disk: what was written is what is read, and what is missing is named."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from engine_kit import lora, row, rows

from clora_core.recipe.row import Row
from manifests.rows.table import rows_of
from manifests.tables import spool
from pipelines.leases.lease_record import LeaseRecord
from pipelines.leases.seal import find_rivals, plans_of_earlier_runs
from pipelines.planning import partitions
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import (
    PlanReader,
    one_file_name,
    part_name,
    planned_keys,
    planned_phases,
    read_parts,
    record_name,
    write_plan,
)
from pipelines.planning.plan_units import plan_units
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_parquet
from pipelines.units.receipts import Phase
from pipelines.units.schemas import PLAN

RUN = "run-1"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 9)
    monkeypatch.setattr(spool, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(spool, "MIN_PIECE_BYTES", 0)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path)


def plan(manifest: Sequence[Row], *, rows_per_unit: int = 2) -> Plan:
    return plan_units(manifest, made=(), failed={}, rows_per_unit=rows_per_unit, attempts=3)


def keys_of(storage: Storage, run_id: str = RUN) -> tuple[set[tuple[str, str]], list[str]]:
    """Return the (unit, key) pairs of a plan, and the sentences on its damage."""
    damaged: list[DamagedFileError] = []
    tables = list(planned_keys(storage, run_id, Phase.IMAGES, skip=damaged.append))
    pairs = {(row["unit_id"], row["key"]) for table in tables for row in table.to_pylist()}
    return pairs, [str(damage) for damage in damaged]


def pairs_of(plan: Plan, parts: Sequence[int] | None = None) -> set[tuple[str, str]]:
    chosen = plan.part_numbers if parts is None else parts
    tables = [plan.read_part(part) for part in chosen]
    return {(row["unit_id"], row["key"]) for table in tables for row in table.to_pylist()}


def rivals_of(storage: Storage, run_id: str = RUN) -> tuple[frozenset[str], bool]:
    """Return what a run would seal that plans every row of 60 in units of its own."""
    lease = LeaseRecord(epoch=1, run_id=run_id, host="h", process="p", began_at="")
    earlier = plans_of_earlier_runs(storage, [lease], note=lambda _: None)
    own = pa.table({"key": [one.key for one in rows(60)]})
    found = find_rivals(earlier, settled=(), own_keys=lambda: [own])
    return found.unit_ids, found.others


def test_a_plan_that_is_written_in_parts_is_read_back_unit_by_unit(storage: Storage):
    """Of units of one row there are more than a row group holds."""
    whole = plan(
        [row(seed, loras=(lora("cat" if seed % 3 else "dog"),)) for seed in range(300)],
        rows_per_unit=1,
    )
    few = plan(rows(40), rows_per_unit=3)
    for written in (whole, few):
        write_plan(storage, RUN, Phase.IMAGES, written)
        record = record_name(RUN, Phase.IMAGES)
        assert tuple(read_parts(storage, record)) == written.part_numbers
        assert len(written.part_numbers) > 3
        reader = PlanReader(storage=storage, run_id=RUN, phase=Phase.IMAGES)
        read = {
            unit.unit_id: unit.rows
            for run in written.runs
            for unit in [reader.read(run.part, run.first + at) for at in range(run.num_units)]
        }
        expected = dict(zip(written.unit_ids, written.members_by_unit(), strict=True))
        assert {name: list(rows_of(table)) for name, table in read.items()} == expected
        assert keys_of(storage) == (pairs_of(written), [])


def test_a_part_with_more_units_than_a_row_group_is_read_at_any_place(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(partitions, "ROWS_PER_PARTITION", 10_000)
    written = plan(rows(600), rows_per_unit=1)
    write_plan(storage, RUN, Phase.IMAGES, written)
    reader = PlanReader(storage=storage, run_id=RUN, phase=Phase.IMAGES)
    (part,) = written.part_numbers
    names = [reader.read(part, place).unit_id for place in (0, 255, 256, 511, 512, 599, 3)]
    assert names == [written.unit_ids[place] for place in (0, 255, 256, 511, 512, 599, 3)]


def test_a_plan_of_no_rows_has_a_record_and_no_parts(storage: Storage):
    write_plan(storage, RUN, Phase.IMAGES, plan([]))
    assert storage.list("plans/run-1", ".parquet") == []
    assert keys_of(storage) == (set(), [])
    assert planned_phases(storage, Phase.IMAGES) == [RUN]


def test_a_plan_of_one_file_that_an_earlier_release_wrote_is_sealed(storage: Storage):
    old = plan(rows(10))
    name = one_file_name(RUN, Phase.IMAGES)
    storage.put(name, encode_parquet(name, old.batches(), PLAN))
    assert keys_of(storage) == (pairs_of(old), [])
    assert planned_phases(storage, Phase.IMAGES) == [RUN]
    assert rivals_of(storage) == (frozenset(old.unit_ids), False)


def test_a_plan_without_a_record_is_of_a_run_that_never_began(storage: Storage):
    write_plan(storage, RUN, Phase.IMAGES, plan(rows(30)))
    storage.delete(record_name(RUN, Phase.IMAGES))
    assert keys_of(storage) == (set(), [])
    assert planned_phases(storage, Phase.IMAGES) == []
    assert rivals_of(storage) == (frozenset(), False)


def test_a_missing_part_is_damage_that_is_named_and_the_other_parts_are_sealed(storage: Storage):
    written = plan(rows(60))
    write_plan(storage, RUN, Phase.IMAGES, written)
    gone, *others = written.part_numbers
    name = part_name(RUN, Phase.IMAGES, gone)
    storage.delete(name)
    pairs, damages = keys_of(storage)
    assert pairs == pairs_of(written, others)
    assert [damage.partition("; ")[0] for damage in damages] == [
        f"{storage.uri}/{name} is damaged: it is missing"
    ]
    units, is_open = rivals_of(storage)
    assert units == {unit for unit, _ in pairs_of(written, others)}
    # Its units are not known, so a later run looks again.
    assert is_open


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"parts": 3}', b'{"parts": ["x"]}', b"{}"])
def test_all_parts_are_sealed_where_the_record_that_names_them_is_damaged(
    storage: Storage, content: bytes
):
    written = plan(rows(60))
    write_plan(storage, RUN, Phase.IMAGES, written)
    name = record_name(RUN, Phase.IMAGES)
    storage.put(name, content)
    pairs, damages = keys_of(storage)
    assert pairs == pairs_of(written)
    assert len(damages) == 1
    assert f"{storage.uri}/{name} is damaged: it cannot be read" in damages[0]
    assert rivals_of(storage) == (frozenset(written.unit_ids), True)


def test_a_record_of_fewer_parts_than_were_written_is_damage(storage: Storage):
    write_plan(storage, RUN, Phase.IMAGES, plan(rows(60)))
    name = record_name(RUN, Phase.IMAGES)
    values = json.loads(storage.read(name))
    storage.put(name, json.dumps({**values, "parts": values["parts"][:-1]}).encode())
    assert len(keys_of(storage)[1]) == 1


def test_one_phase_of_a_run_is_not_taken_for_another(storage: Storage):
    images, references = plan(rows(20)), plan(rows(40))
    write_plan(storage, RUN, Phase.IMAGES, images)
    write_plan(storage, RUN, Phase.REFERENCES, references)
    assert keys_of(storage)[0] == pairs_of(images)
    storage.put(record_name(RUN, Phase.IMAGES), b"{")
    assert keys_of(storage)[0] == pairs_of(images)
