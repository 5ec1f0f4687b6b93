"""What a run's driver reads while units are made is what its end would read."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import BAD_ROW, Watcher, commit, request, row, rows
from inline_engine import run_inline

from pipelines.early_reads import EarlyReads
from pipelines.ledger.ledger import Ledger, survey
from pipelines.ledger.unit_rows import UNIT
from pipelines.outputs.listed_rows import LISTED, ListedRows
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import rows_name

UNITS = ("a", "b", "failed", "c")


class Counting(LocalStorage):
    """Counts how often each file is opened; the reading of ``last`` is waited for."""

    def __init__(self, root: Path, last: str = "") -> None:
        super().__init__(root)
        self.opened: Counter[str] = Counter()
        self.last = last
        self.has_read_last = threading.Event()

    def open(self, name: str) -> Any:
        self.opened[name] += 1
        if name == self.last:
            self.has_read_last.set()
        return super().open(name)


@pytest.fixture
def output(tmp_path: Path) -> Counting:
    """Four units, one of them without a row."""
    storage = Counting(tmp_path / "out", last=rows_name(UNITS[-1]))
    for number, unit_id in enumerate(UNITS):
        prompt = BAD_ROW if unit_id == "failed" else "a cat"
        commit(storage, unit_id, [row(10 * number + index, prompt=prompt) for index in range(2)])
    return storage


def read_early(reads: EarlyReads, storage: Counting) -> None:
    for unit_id in UNITS:
        reads.committed(unit_id)
    assert storage.has_read_last.wait(30)


def facts(ledger: Ledger, listed: ListedRows) -> list[Any]:
    """Return all units and rows, but for the order that they were read in."""
    listed.take_rest(ledger)
    units = pa.concat_tables([UNIT.empty_table(), *ledger.unit_tables()]).sort_by("unit_id")
    lines = pa.concat_tables([LISTED.empty_table(), *listed.tables()]).sort_by("key")
    return [units.to_pylist(), lines.to_pylist(), ledger.num_made, ledger.num_errors]


def plain_facts(storage: LocalStorage) -> list[Any]:
    listed = ListedRows(storage)
    return facts(survey(storage, listed), listed)


def test_units_that_were_read_early_are_not_read_again(output: Counting):
    with EarlyReads(output) as reads:
        read_early(reads, output)
        found = reads.survey()
    found = facts(*found)
    assert output.opened == Counter(rows_name(unit_id) for unit_id in UNITS)
    assert found == plain_facts(output)


def test_a_unit_that_was_replaced_or_set_aside_meanwhile_is_read_as_it_is(output: Counting):
    with EarlyReads(output) as reads:
        read_early(reads, output)
        output.delete(rows_name("a"))
        output.delete(rows_name("b"))
        commit(output, "b", [row(77)])
        found = facts(*reads.survey())
    assert found == plain_facts(output)
    assert {line["seed"] for line in found[1]} == {77, 30, 31}


def test_a_unit_that_is_damaged_early_is_damaged_at_the_end(output: Counting):
    path = Path(output.uri, rows_name("b"))
    path.write_bytes(path.read_bytes()[:-9])
    with EarlyReads(output) as reads:
        read_early(reads, output)
        ledger, listed = reads.survey()
    assert [damage.name for damage in ledger.damaged] == [rows_name("b")]
    assert {line["unit_id"] for line in facts(ledger, listed)[1]} == {"a", "c"}


@pytest.mark.parametrize("when", ["after", "never"])
def test_without_versions_of_files_all_is_read_at_the_end(
    output: Counting, monkeypatch: pytest.MonkeyPatch, when: str
):
    monkeypatch.setattr(output, "version", lambda _name: (1, ""))
    with EarlyReads(output) as reads:
        if when == "after":
            read_early(reads, output)
        found = facts(*reads.survey())
    assert found == plain_facts(output)


def test_a_store_that_fails_early_is_asked_again_at_the_end(
    output: Counting, monkeypatch: pytest.MonkeyPatch
):
    asked = threading.Event()

    def fails(_name: str) -> tuple[int, str]:
        asked.set()
        raise OSError("away")

    with EarlyReads(output) as reads, monkeypatch.context() as patch:
        patch.setattr(output, "version", fails)
        reads.committed("a")
        assert asked.wait(30)
        found = facts(*reads.survey())
    assert found == plain_facts(output)


def test_a_run_ends_with_the_rows_that_it_would_read_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_inline(monkeypatch)
    manifest = [*rows(20), row(50, prompt=BAD_ROW)]
    lists: list[str] = []
    for name in ("early", "late"):
        if name == "late":
            monkeypatch.setattr(EarlyReads, "committed", lambda *_: None)
        compose_rows(request(tmp_path / name, manifest), Watcher(), address=None)
        lists.append((tmp_path / name / "images.csv").read_text())
    assert lists[0] == lists[1]
