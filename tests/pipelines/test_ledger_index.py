"""Whatever state the indexes are in, the ledger is that of the units' own files."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from oracles.slow_ledger import slow_ledger
from unit_kit import ledger_values, put_unit, text_key

from jobs.commands.gc import gc
from jobs.commands.verify import verify
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.ledger import index_files, ledger, unit_rows, update_index
from pipelines.ledger.account import failures_among
from pipelines.ledger.index_files import INDEX_FOLDER
from pipelines.ledger.ledger import read_ledger, survey
from pipelines.ledger.unit_rows import read_unit_row
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_unit import rows_name

TIMES = LeaseTimes(beat_s=0.02, silence_s=0.2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Borders that a few units cross."""
    for module in (unit_rows, ledger):
        monkeypatch.setattr(module, "MAX_KEYS", 5)
    monkeypatch.setattr(unit_rows, "MAX_UNITS", 3)
    monkeypatch.setattr(ledger, "_MAX_HELD_BYTES", 300)
    for module in (index_files, update_index):
        monkeypatch.setattr(module, "MAX_FILE_KEYS", 12)
    monkeypatch.setattr(update_index, "MIN_UNITS", 1)
    monkeypatch.setattr(os, "fsync", lambda _file: None)


def unit_id(number: int) -> str:
    # Some are no hashes.
    return f"u{number}" if number % 3 == 0 else text_key(1000 + number)


keys = st.integers(0, 15).map(text_key)
units = st.builds(
    lambda made, failed, run, sized, abandoned: {
        "keys": [] if abandoned else made,
        "failed": {} if abandoned else failed,
        "run_id": f"run-{run}",
        "sizes": [100 + n for n in range(len(made))] if sized and not abandoned else [],
        "is_abandoned": abandoned,
    },
    st.lists(keys, max_size=6),
    st.dictionaries(keys, st.integers(1, 3), max_size=2),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from([False] * 5 + [True]),
)
numbers = st.integers(0, 7)
ACTIONS = st.one_of(
    st.tuples(st.just("put"), numbers, units),
    st.tuples(st.just("put"), numbers, units),
    st.tuples(st.just("index"), st.none(), st.none()),
    st.tuples(st.just("index"), st.none(), st.none()),
    st.tuples(st.sampled_from(["remove", "set aside", "touch", "cut"]), numbers, st.none()),
    st.tuples(st.just("flip"), st.integers(0, 10**9), st.integers(0, 7)),
    st.tuples(st.sampled_from(["cut index", "delete index"]), numbers, st.none()),
    st.tuples(st.just("killed"), st.none(), st.none()),
)


@dataclass
class Output:
    """An output, and the indexes that it ever had."""

    storage: LocalStorage
    old: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def do(self, what: str, number: int, more: object) -> None:
        storage = self.storage
        name = rows_name(unit_id(number or 0))
        indexes = storage.list(INDEX_FOLDER, "")
        if what == "put":
            put_unit(storage, unit_id(number), **more)  # pyright: ignore[reportCallIssue]
        elif what == "index":
            self.old |= {index: storage.read(index) for index in indexes}
            update_index.update_index(survey(storage))
        elif what == "killed":
            # Before the files were deleted that it had merged into new ones.
            storage.put_all(self.old)
        elif what.endswith("index"):
            for index in indexes[: number % 2 + 1]:
                content = storage.read(index)
                storage.delete(index)
                if what == "cut index":
                    storage.put(index, content[: len(content) * number // 8])
        elif what == "flip" and indexes:
            index = indexes[number % len(indexes)]
            content = bytearray(storage.read(index))
            content[number % len(content)] ^= 1 << int(str(more))
            storage.put(index, bytes(content))
        elif storage.exists(name):
            if what == "remove":
                storage.delete(name)
            elif what == "set aside":
                storage.move(name, f"damaged/{name}")
                put_unit(storage, unit_id(number), [], is_abandoned=True)
            elif what == "touch":
                os.utime(Path(storage.uri) / name, ns=(1, 1))
            elif what == "cut":
                storage.put(name, storage.read(name)[:-9])


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTIONS, min_size=4, max_size=16))
def test_the_ledger_is_that_of_the_units_whatever_the_indexes_say(actions: list[tuple]):
    with tempfile.TemporaryDirectory() as folder:
        output = Output(LocalStorage(Path(folder)))
        for action in actions:
            output.do(*action)
        assert ledger_values(survey(output.storage)) == slow_ledger(output.storage)
        # The ledger that wrote an index reads from it what it said before.
        before = survey(output.storage)
        after = update_index.update_index(before)
        assert ledger_values(after) == slow_ledger(output.storage)
        assert ledger_values(survey(output.storage)) == slow_ledger(output.storage)


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Ten units of two keys, all indexed; the first key of unit 3 failed once before."""
    where = str(tmp_path / "out") if request.param == "disk" else request.getfixturevalue("s3_uri")
    storage = open_storage(where)
    for number in range(10):
        made = [text_key(2 * number), text_key(2 * number + 1)]
        failed = {text_key(6): 1, text_key(99): 2} if number == 9 else {}
        put_unit(storage, unit_id(number), made, failed=failed, sizes=[5, 6])
    update_index.update_index(read_ledger(storage))
    return storage


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of units that were read."""
    names: list[str] = []

    def read(storage: Storage, name: str, identity: bytes) -> pa.Table:
        names.append(name)
        return read_unit_row(storage, name, identity)

    monkeypatch.setattr(unit_rows, "read_unit_row", read)
    return names


def test_units_that_are_indexed_are_not_read(storage: Storage, reads: list[str]):
    assert ledger_values(read_ledger(storage)) == slow_ledger(storage)
    assert reads == []


def test_a_unit_that_was_replaced_by_one_of_the_same_size_is_read(
    storage: Storage, reads: list[str]
):
    size = len(storage.read(rows_name(unit_id(4))))
    put_unit(storage, unit_id(4), [text_key(50), text_key(51)], sizes=[5, 6])
    assert abs(len(storage.read(rows_name(unit_id(4)))) - size) < 100
    assert text_key(8) not in read_ledger(storage).made
    assert set(reads) == {rows_name(unit_id(4))}


def test_only_a_unit_that_is_listed_counts(storage: Storage, reads: list[str]):
    storage.delete(rows_name(unit_id(4)))
    assert ledger_values(read_ledger(storage)) == slow_ledger(storage)
    assert len(read_ledger(storage).made) == 18
    assert reads == []


def test_a_unit_in_two_indexes_counts_once(storage: Storage):
    """A kill came between the new index and the end of those that it had taken along."""
    old = {name: storage.read(name) for name in storage.list(INDEX_FOLDER, "")}
    for number in range(10, 30):
        put_unit(storage, unit_id(number), [text_key(100 + number)])
    update_index.update_index(read_ledger(storage))
    assert not old.keys() <= set(storage.list(INDEX_FOLDER, ""))
    storage.put_all(old)
    assert ledger_values(read_ledger(storage)) == slow_ledger(storage)


def test_a_copied_output_costs_time_and_its_index_is_written_anew(tmp_path: Path, reads: list[str]):
    old, new = LocalStorage(tmp_path / "old"), LocalStorage(tmp_path / "new")
    put_unit(old, "u1", [text_key(1)])
    update_index.update_index(read_ledger(old))
    stale = old.list(INDEX_FOLDER, "")
    for name in old.walk(""):
        new.put(name, old.read(name))
    assert read_ledger(new).made == {text_key(1)}
    assert reads == [rows_name("u1")] * 2
    assert gc(new.uri, delete=True, times=TIMES) == 0
    assert new.list(INDEX_FOLDER, "") == []
    new.put(stale[0], old.read(stale[0]))
    update_index.update_index(read_ledger(new))
    assert len(new.list(INDEX_FOLDER, "")) == 1
    assert new.list(INDEX_FOLDER, "") != stale


def test_a_ledger_outlives_the_index_that_it_was_read_from(storage: Storage):
    expected = slow_ledger(storage)
    ledger = read_ledger(storage)
    for name in storage.list(INDEX_FOLDER, ""):
        storage.delete(name)
    assert ledger_values(ledger) == expected


def test_a_damaged_index_is_named_by_verify_and_written_again_by_repair(
    storage: Storage, capfd: pytest.CaptureFixture[str], reads: list[str]
):
    # Without images verify finds more to say; here it is asked of the index.
    name = storage.list(INDEX_FOLDER, "")[0]
    storage.put(name, storage.read(name)[:-20])
    verify(storage.uri)
    assert f"{storage.uri}/{name} is damaged: it cannot be read (cut off" in capfd.readouterr().err
    assert ledger_values(read_ledger(storage)) == slow_ledger(storage)
    verify(storage.uri, repair=True, times=TIMES)
    assert f"set aside   {storage.uri}/{name}" in capfd.readouterr().out
    assert name not in storage.list(INDEX_FOLDER, "")
    reads.clear()
    assert ledger_values(read_ledger(storage)) == slow_ledger(storage)
    assert reads == []


def test_an_index_that_says_something_else_than_a_unit_is_named_by_verify(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    storage = LocalStorage(tmp_path / "out")
    put_unit(storage, "u1", [text_key(1)])

    def other(storage: Storage, name: str, identity: bytes) -> pa.Table:
        row = read_unit_row(storage, name, identity)
        return row.set_column(7, row.schema.field(7), pa.array([[text_key(2)]]))

    monkeypatch.setattr(unit_rows, "read_unit_row", other)
    update_index.update_index(read_ledger(storage))
    monkeypatch.setattr(unit_rows, "read_unit_row", read_unit_row)
    verify(storage.uri)
    assert "says something else of unit u1 than its file" in capfd.readouterr().err


def test_few_files_are_read_and_no_row_is_written_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index_files, "MAX_FILE_KEYS", 1000)
    monkeypatch.setattr(update_index, "MAX_FILE_KEYS", 1000)
    storage = LocalStorage(tmp_path / "out")
    num_written = 0
    for number in range(32):
        put_unit(storage, unit_id(number), [text_key(number)])
        before = set(storage.list(INDEX_FOLDER, ""))
        ledger = update_index.update_index(read_ledger(storage))
        num_written += sum(i.num_units for i in ledger.indexes if i.name not in before)
        assert len(ledger.indexes) <= 6
    assert num_written <= 32 * 6


def test_failures_of_rows_that_are_asked_for_are_in_order_of_their_keys(storage: Storage):
    failures = read_ledger(storage).failures
    assert failures["key"].to_pylist() == [text_key(99)]
    assert failures["attempt"].to_pylist() == [2]
    assert len(failures_among([pa.table({"key": [text_key(99)]})], failures)) == 1
    assert len(failures_among([pa.table({"key": [text_key(6)]})], failures)) == 0
