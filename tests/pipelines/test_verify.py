"""What verify says of an output, broken in one way each; and that gc takes nothing it needs."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_kit import BAD_ROW, commit, request, row, rows

from jobs.commands.gc import gc
from jobs.commands.verify import verify
from pipelines.leases.claims import Claimant
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import LeaseHeldError, acquire
from pipelines.leases.makers import present
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.tries import TryMarks
from pipelines.planning.plan_files import write_plan
from pipelines.run_plan import plan_rows
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import encode_unit, read_footer, rows_name
from pipelines.units.receipts import Phase
from pipelines.upkeep.garbage import find_garbage
from pipelines.upkeep.repair import repair_output

TIMES = LeaseTimes(beat_s=0.02, silence_s=0.5)


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An output of two units, of which one row failed."""
    where = str(tmp_path / "out") if request.param == "disk" else request.getfixturevalue("s3_uri")
    storage = open_storage(where)
    commit(storage, "u1", rows(3))
    commit(storage, "u2", [row(7), row(8, prompt=BAD_ROW)])
    return storage


def unit_rows(storage: Storage, unit_id: str) -> pq.ParquetFile:
    return pq.ParquetFile(io.BytesIO(storage.read(rows_name(unit_id))))


def told(storage: Storage, capfd: pytest.CaptureFixture[str]) -> str:
    """Verify, which must find something, and return what it says."""
    assert verify(storage.uri) == 1
    return capfd.readouterr().err


def test_a_whole_output_holds_and_its_references_with_it(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    commit(open_storage(f"{storage.uri}/references/dino-d"), "r1", [row(20)])
    assert verify(storage.uri) == 0
    assert "5 committed rows in 3 units, 0 problem(s): every row" in capfd.readouterr().out


def test_a_missing_a_changed_and_a_swapped_image_are_told_by_key(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    missing, changed, swapped = (image_name(row(seed).key) for seed in range(3))
    content = storage.read(changed)
    storage.delete(missing)
    storage.put(swapped, content)
    storage.put(changed, content[:-1])
    said = told(storage, capfd)
    assert f"{missing} is damaged: it is missing; `clora verify {storage.uri} --repair`" in said
    assert f"{changed} is damaged: it is not the image that was committed" in said
    assert f"{swapped} is damaged: it is not the image that was committed" in said


def test_a_row_that_is_committed_twice_is_told_with_both_units(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    commit(storage, "u9", [row(1)])
    said = told(storage, capfd)
    assert f"rows/unit-u9.parquet, key {row(1).key} is also in rows/unit-u1.parquet" in said


def test_an_image_that_was_changed_in_the_table_is_told(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    with unit_rows(storage, "u2") as file:
        table, footer = file.read(), read_footer(file.metadata, rows_name("u2"))
    values = table.to_pylist()
    values[0]["image"]["bytes"] += b"x"
    changed = type(table).from_pylist(values, schema=table.schema)
    storage.put(rows_name("u2"), encode_unit(changed, footer))
    assert f"the image of key {row(7).key} has another SHA-256" in told(storage, capfd)


def test_a_unit_under_another_name_and_a_cut_one_are_told(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    content = storage.read(rows_name("u1"))
    storage.put("rows/unit-x.parquet", content)
    storage.put("rows/unit-cut.parquet", content[:-20])
    said = told(storage, capfd)
    assert "rows/unit-x.parquet is damaged" in said
    assert "(the content of rows/unit-u1.parquet)" in said
    assert "rows/unit-cut.parquet is damaged: it cannot be read (cut off" in said


def test_an_empty_output_does_not_pass_for_a_good_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert "nothing is committed here" in told(LocalStorage(tmp_path / "none"), capfd)


def litter(storage: Storage) -> set[str]:
    """Leave what a kill leaves; return the names that are garbage."""
    orphan = image_name(row(30).key)
    names = {orphan, "images/ab/.writing-00-x.png", "rows/.writing-01-unit-z.parquet"}
    for name in names:
        storage.put(name, b"left")
    marks = TryMarks(storage=storage, run_id="run-1")
    marks.begin("u1")
    marks.begin("not committed yet")
    storage.put("images/notes.txt", b"the user's own")
    claimant = Claimant(storage=storage, run_id="run-1")
    claimant.claim("u1", lambda: False)
    claimant.claim("not committed yet", lambda: False)
    return names | set(storage.list("attempts/u1", "")) | set(storage.list("claims/u1", ""))


def test_gc_shows_what_nothing_refers_to_and_removes_it_only_when_asked(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    garbage = litter(storage)
    before = set(storage.walk("images")) | set(storage.walk("rows"))
    assert gc(storage.uri) == 0
    assert f"{len(garbage)} files to remove" in capfd.readouterr().out
    assert set(storage.walk("images")) | set(storage.walk("rows")) == before
    assert gc(storage.uri, delete=True, times=TIMES) == 0
    assert f"{len(garbage)} files removed" in capfd.readouterr().out
    assert find_garbage(storage).names == ()
    left = set(storage.walk("images")) | set(storage.walk("rows"))
    assert left == before - garbage
    assert storage.exists("images/notes.txt")
    assert len(list(storage.walk("attempts"))) == len(list(storage.walk("claims"))) == 1
    assert verify(storage.uri) == 0


def test_gc_takes_nothing_while_a_run_lives(storage: Storage, capfd: pytest.CaptureFixture[str]):
    garbage = litter(storage)
    with acquire(storage, "run-2", times=TIMES, note=print):
        assert gc(storage.uri, delete=True, times=LeaseTimes(beat_s=0.2, silence_s=20)) == 1
        assert "is being written by run run-2" in capfd.readouterr().err
        assert gc(storage.uri) == 0
        assert "run run-2 on" in capfd.readouterr().err
    assert set(find_garbage(storage).names) == garbage


def test_gc_and_repair_leave_a_store_alone_while_a_run_makes_references_there(
    storage: Storage, capfd: pytest.CaptureFixture[str]
):
    garbage = litter(storage)
    quick = LeaseTimes(beat_s=0.2, silence_s=20)
    with present(storage, "run-2", LeaseTimes(beat_s=0.05, silence_s=20)):
        assert gc(storage.uri, delete=True, times=quick) == 1
        assert "is being written by run run-2" in capfd.readouterr().err
        assert gc(storage.uri) == 0
        assert "run run-2 on" in capfd.readouterr().err
        with pytest.raises(LeaseHeldError, match="is being written by run run-2"):
            repair_output(storage, times=quick, note=print)
    assert set(find_garbage(storage).names) == garbage


def test_a_worker_that_wakes_up_after_gc_commits_no_row_without_its_image(tmp_path: Path):
    """It had written its images, and was stopped before it committed them."""
    manifest = rows(8)
    asked = request(tmp_path, manifest)
    storage = asked.storage
    plan = plan_rows(asked, read_ledger(storage))
    with acquire(storage, "old", times=TIMES, note=print):
        write_plan(storage, "old", Phase.IMAGES, plan)
    unit, other = plan.units.to_pylist()
    members = [one for one in manifest if one.key in {row["key"] for row in unit["rows"]}]
    for one in members:
        storage.put(image_name(one.key), b"written, not committed")
    assert gc(str(tmp_path), delete=True, times=TIMES) == 0
    # What the worker would do next: the file of its unit, and nothing before it.
    assert not storage.put_if_absent(rows_name(unit["unit_id"]), b"its rows")
    assert not storage.exists(rows_name(other["unit_id"]))
    assert read_ledger(storage).abandoned == {unit["unit_id"]}
