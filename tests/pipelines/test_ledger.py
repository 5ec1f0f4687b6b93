import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from engine_kit import BAD_ROW, commit, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from unit_kit import put_unit, text_key

from manifests.rows.stored_rows import StoredRows
from pipelines.ledger.account import Account, take_account
from pipelines.ledger.ledger import FailedRow, LedgerError, read_ledger, survey
from pipelines.ledger.lost_images import damaged_images
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def test_nothing_yet_is_an_empty_ledger(storage: LocalStorage):
    ledger = read_ledger(storage)
    assert not ledger.made
    assert not ledger.failed


def test_what_is_committed_is_made(storage: LocalStorage):
    commit(storage, "u1", rows(3))
    commit(storage, "u2", [row(7)])
    assert read_ledger(storage).made == {one.key for one in (*rows(3), row(7))}


def test_attempts_are_counted_in_the_data_and_a_later_image_ends_them(storage: LocalStorage):
    bad = row(0, prompt=BAD_ROW)
    commit(storage, "u1", [bad, row(1)])
    commit(storage, "u2", [bad], attempt=2)
    ledger = read_ledger(storage)
    assert ledger.failed == {bad.key: FailedRow(attempts=2, unit_id="u2")}
    assert ledger.last_errors[bad.key]["message"] == "no subject in it"
    commit(storage, "u3", [row(0, key=bad.key)], attempt=3)
    ledger = read_ledger(storage)
    assert not ledger.failed
    assert bad.key in ledger.made


def test_a_unit_of_which_every_row_failed_is_remembered(storage: LocalStorage):
    bad = [row(index, prompt=BAD_ROW) for index in range(2)]
    commit(storage, "u1", bad)
    ledger = read_ledger(storage)
    assert not ledger.made
    assert set(ledger.failed) == {one.key for one in bad}


def test_unfinished_writes_are_not_there(storage: LocalStorage):
    commit(storage, "u1", rows(1))
    (Path(storage.uri) / "rows" / ".writing-1-unit-x.parquet").write_bytes(b"PAR1 half")
    assert len(read_ledger(storage).made) == 1


@pytest.mark.parametrize("content", [b"", b"not a Parquet file at all"])
def test_a_stranger_among_the_units_is_named(storage: LocalStorage, content: bytes):
    storage.put("rows/unit-mine.parquet", content)
    storage.put("rows/unit-other.parquet", content)
    commit(storage, "u1", rows(2))
    with pytest.raises(LedgerError) as raised:
        read_ledger(storage)
    said = str(raised.value)
    assert f"2 committed unit(s) in {storage.uri} are damaged" in said
    assert "rows/unit-mine.parquet: cannot be read (" in said
    assert "rows/unit-other.parquet: cannot be read (" in said
    assert f"`clora verify {storage.uri} --repair` sets them aside" in said
    ledger = survey(storage)
    assert ledger.made == {one.key for one in rows(2)}
    assert [error.name for error in ledger.damaged] == [
        "rows/unit-mine.parquet",
        "rows/unit-other.parquet",
    ]


def test_a_doubled_key_is_counted(storage: LocalStorage):
    commit(storage, "u1", rows(2))
    commit(storage, "u2", [row(1)])
    assert read_ledger(storage).num_doubled == 1


def test_the_account_adds_up_to_the_manifest(storage: LocalStorage):
    manifest = [*rows(4), row(1), row(9, prompt=BAD_ROW), row(10)]
    commit(storage, "u1", manifest[:1])
    before = read_ledger(storage)
    commit(storage, "u2", [*manifest[1:4], manifest[5]])
    keys = StoredRows.of(manifest).tables()
    account = take_account(keys, before=before, after=read_ledger(storage))
    assert account == Account(
        num_rows=7,
        num_made=3,
        num_failed=1,
        num_given_up=0,
        num_already_made=1,
        num_duplicates=1,
        num_missing=1,
        num_doubled=0,
    )
    parts = account.num_made + account.num_failed + account.num_skipped + account.num_missing
    assert parts == account.num_rows
    assert not account.is_complete


numbers = st.lists(st.integers(0, 12), max_size=12)


@settings(max_examples=25, deadline=None)
@given(numbers, numbers, numbers, numbers, numbers)
def test_the_account_is_that_of_sets_of_keys(
    listed: list[int], early: list[int], late: list[int], bad: list[int], given_up: list[int]
):
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        put_unit(storage, "u1", list(map(text_key, early)))
        before = read_ledger(storage)
        put_unit(
            storage, "u2", list(map(text_key, late)), failed=dict.fromkeys(map(text_key, bad), 1)
        )
        keys = pa.table({"key": pa.array(list(map(text_key, listed)), pa.string())})
        account = take_account(
            [keys.slice(0, 5), keys.slice(5)],
            before=before,
            after=read_ledger(storage),
            given_up=map(text_key, given_up),
        )
    rows_, made = set(listed), {*early, *late}
    failed = (rows_ & set(bad)) - made
    assert account == Account(
        num_rows=len(listed),
        num_made=len(rows_ & made - set(early)),
        num_failed=len(failed),
        num_given_up=len(failed & set(given_up)),
        num_already_made=len(rows_ & set(early)),
        num_duplicates=len(listed) - len(rows_),
        num_missing=len(rows_ - made - failed),
        num_doubled=len(early) + len(late) - len(made),
    )


@settings(max_examples=25, deadline=None)
@given(numbers, st.dictionaries(st.integers(0, 12), st.sampled_from([0, 7, 8])))
def test_an_image_is_damaged_if_its_file_is_missing_empty_or_of_another_size(
    made: list[int], files: dict[int, int]
):
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        of_old, sized = made[::2], [number for number in made[1::2] if number not in made[::2]]
        put_unit(storage, "u1", list(map(text_key, of_old)))
        put_unit(storage, "u2", list(map(text_key, sized)), sizes=[7] * len(sized))
        for number, size in files.items():
            storage.put(image_name(text_key(number)), b"x" * size)
        damaged = damaged_images(storage, read_ledger(storage))
    lost = {number for number in of_old if not files.get(number)}
    lost |= {number for number in sized if files.get(number) != 7}
    assert damaged == sorted(map(text_key, lost))
