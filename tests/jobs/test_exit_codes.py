"""Exit codes of a run whose store breaks: 1 while it may come back, 2 if it never can."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, FakeEngine, FakeEngineSource
from inline_engine import run_inline
from input_kit import row, write_job

from jobs import compose as compose_module
from jobs.catalog import catalog
from jobs.compose import compose
from jobs.exit_code import EXPECTED_ERRORS, code_of_error
from jobs.plan import plan
from jobs.run_request import run_request
from jobs.validate import validate
from manifests.locations import StoreAwayError
from manifests.problems import InputError
from pipelines.cluster_session import ClusterError
from pipelines.lease import LeaseHeldError, LeaseLostError
from pipelines.ledger import LedgerError, read_ledger
from pipelines.metrics_server import MetricsAddressError, MetricsPortError
from pipelines.output_files import DamagedFileError
from pipelines.request import RunRequest
from pipelines.shares import SharesError
from pipelines.storage import LocalStorage, PlaceError, StorageError

WRITES = (
    "leases/", "manifests/", "runs/", "plans/", "attempts/", "images/", "rows/", "errors/",
    "metrics.prom", "README.md", "contact_sheet.png",
)  # fmt: skip
"""Where a run writes, in the order that it comes to them."""


class Breaking(LocalStorage):
    """A disk that refuses every write of names that begin in one way."""

    def __init__(self, root: Path, start: str, error: type[StorageError] = StorageError) -> None:
        super().__init__(root)
        self._start = start
        self._error = error

    def _refuse(self, *names: str) -> None:
        if any(name.startswith(self._start) for name in names):
            raise self._error(f"{self.uri}/{names[0]} cannot be written: it is away")

    def put_all(self, files: Mapping[str, bytes]) -> None:
        self._refuse(*files)
        super().put_all(files)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        self._refuse(name)
        return super().put_if_absent(name, content)

    def mark(self, name: str) -> None:
        self._refuse(name)
        super().mark(name)


def broken_request(start: str, error: type[StorageError] = StorageError) -> Any:
    """Return a stand-in for ``run_request``: fakes on a disk that breaks; an empty start never."""

    def make(*arguments: Any, **options: Any) -> RunRequest:
        asked = run_request(*arguments, **options)
        storage = Breaking(Path(asked.storage.uri), start or "nothing", error)
        return replace(asked, storage=storage, load_engine=FakeEngineSource())

    return make


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of five rows, one of which fails where it is sampled."""
    run_inline(monkeypatch)
    bad = row(prompt=f"a cat and a dog, {BAD_ROW}", seed=99)
    monkeypatch.setattr(FakeEngineSource, "__call__", lambda _self, _shares: Failing())
    return write_job(tmp_path, [*(row(seed=seed) for seed in range(4)), bad])


class Failing(FakeEngine):
    """The fake engine, which here fails rows that end in the word."""

    def compose(self, rows: Any) -> Any:
        return super().compose(
            [replace(r, prompt=BAD_ROW) if r.prompt.endswith(BAD_ROW) else r for r in rows]
        )


@pytest.mark.parametrize("start", WRITES)
def test_a_store_that_breaks_in_a_run_ends_with_1_and_a_sentence_and_the_same_command_completes_it(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: str
):
    monkeypatch.setattr(compose_module, "run_request", broken_request(start))
    assert compose(job) == 1
    said = capsys.readouterr().err
    assert "cannot be written: it is away" in said
    assert "Traceback" not in said
    monkeypatch.setattr(compose_module, "run_request", broken_request(""))
    assert compose(job) == 1, "the bad row alone"
    assert "1 failed" in capsys.readouterr().out
    ledger = read_ledger(LocalStorage(job.parent / "out"))
    assert (len(ledger.made), len(ledger.failed), ledger.num_doubled) == (4, 1, 0)


def test_a_place_that_never_can_be_written_is_2_before_a_run_and_1_within_one(
    job: Path, monkeypatch: pytest.MonkeyPatch
):
    for start, code in (("leases/", 2), ("images/", 1)):
        monkeypatch.setattr(compose_module, "run_request", broken_request(start, PlaceError))
        assert compose(job) == code


@pytest.mark.parametrize("start", ["editions/", "latest.json", "rows/"])
def test_a_catalog_whose_store_breaks_ends_with_1_and_the_next_one_publishes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    start: str,
):
    run_inline(monkeypatch)
    job = write_job(tmp_path, [row(seed=seed) for seed in range(3)])
    assert catalog(job, make_request=broken_request(start)) == 1
    assert "it is away\nnothing was published" in capsys.readouterr().err
    assert catalog(job, make_request=broken_request("")) == 0
    assert "edition 1 is the latest" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/clora", "n" * 300])
@pytest.mark.parametrize("command", [validate, plan, compose])
def test_an_output_that_cannot_be_written_is_found_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any, output: str
):
    (tmp_path / "file").write_text("mine")
    job = write_job(tmp_path, [row()], output=output)
    before = sorted(tmp_path.rglob("*"))
    assert command(job) == 2
    said = capsys.readouterr().err
    assert "name another output" in said or "name a shorter output" in said
    assert output.rpartition("/")[2] in said
    assert sorted(tmp_path.rglob("*")) == before


def test_validate_lists_a_bad_output_with_all_other_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    job = write_job(tmp_path, [row(seed=-1)], output="/proc/clora")
    assert validate(job) == 2
    said = capsys.readouterr().err
    assert "seed" in said
    assert "output" in said


@pytest.mark.parametrize("command", [validate, plan])
def test_a_store_that_is_away_is_1_for_commands_that_only_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Any,
):
    def away(_self: LocalStorage) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr(LocalStorage, "check_writable", away)
    assert command(write_job(tmp_path, [row()])) == 1
    assert "the store is away" in capsys.readouterr().err


def test_2_is_for_what_is_refused_again_and_1_for_what_may_come_back():
    refused = [
        InputError([]),
        PlaceError(""),
        SharesError(),
        LedgerError(),
        DamagedFileError("", "", ""),
        MetricsAddressError(),
    ]
    passing = [
        StorageError(),
        StoreAwayError(),
        ClusterError(),
        LeaseHeldError(),
        LeaseLostError(),
        MetricsPortError(),
    ]
    assert {type(error) for error in (*refused, *passing)} == set(EXPECTED_ERRORS)
    assert {code_of_error(error) for error in refused} == {2}
    assert {code_of_error(error) for error in passing} == {1}
