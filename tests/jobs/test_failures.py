"""At the end of a run its failed rows have their reasons on the console."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, FakeModelHost, FakeModelHostSource
from inline_engine import run_inline
from input_kit import row, write_job

from jobs.commands import compose as compose_module
from jobs.commands.catalog import catalog
from jobs.commands.compose import compose
from jobs.commands.status import status
from jobs.console import failures
from jobs.job.run_request import run_request
from pipelines.storage.error import StorageError

TITLE = "why rows failed:"


class Failing(FakeModelHost):
    """Fails the rows whose prompt ends in the word."""

    def compose(self, rows: Any) -> Any:
        return super().compose(
            [replace(r, prompt=BAD_ROW) if r.prompt.endswith(BAD_ROW) else r for r in rows]
        )


def fake_request(*arguments: Any, **options: Any) -> Any:
    return replace(run_request(*arguments, **options), load_model_host=FakeModelHostSource())


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one good row and five that fail."""
    run_inline(monkeypatch)
    monkeypatch.setattr(FakeModelHostSource, "__call__", lambda _self, _shares: Failing())
    monkeypatch.setattr(compose_module, "run_request", fake_request)
    bad = [
        row(prompt=f"a cat and a dog, {BAD_ROW}", seed=seed, row_id=f"bad-{seed}")
        for seed in range(1, 6)
    ]
    return write_job(tmp_path, [row(row_id="good"), *bad])


@pytest.mark.parametrize("only_failed", [False, True])
def test_each_reason_is_said_once_with_its_rows_and_the_counts_stay_the_last_line(
    job: Path, capsys: pytest.CaptureFixture[str], only_failed: bool
):
    if only_failed:
        assert compose(job) == 1
        capsys.readouterr()
    assert compose(job, only_failed=only_failed) == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    (reason,) = lines[lines.index(TITLE) + 1 :]
    assert reason.startswith("  5 x prompt, PromptError: ")
    assert reason.endswith("(rows bad-1, bad-2, bad-3 and 2 more)")
    assert "5 failed" in said.out.splitlines()[-1]


def test_a_catalog_says_them_too(job: Path, capsys: pytest.CaptureFixture[str]):
    assert catalog(job, make_request=fake_request) == 1
    assert f"{TITLE}\n  5 x prompt, " in capsys.readouterr().err


def test_with_a_json_log_they_are_a_note(job: Path, capsys: pytest.CaptureFixture[str]):
    assert compose(job, log_format="json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (text,) = [line["text"] for line in lines if line["event"] == "note" and TITLE in line["text"]]
    assert "rows bad-1, bad-2, bad-3 and 2 more" in text
    assert lines[-1]["text"] == text


def test_a_run_that_stops_says_them_once(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def strict(*arguments: Any, **options: Any) -> Any:
        request = fake_request(*arguments, **options)
        budget = request.failure_budget.model_copy(update={"share": 0.0, "min_rows": 0})
        return replace(request, failure_budget=budget)

    monkeypatch.setattr(compose_module, "run_request", strict)
    assert compose(job) == 1
    said = capsys.readouterr().err
    assert said.count(TITLE) == 1
    assert "x prompt, PromptError: " in said.splitlines()[-1]


def test_a_row_that_failed_in_an_earlier_manifest_is_not_among_them(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    assert compose(job) == 1
    capsys.readouterr()
    write_job(job.parent, [row(row_id="good"), row(row_id="other", seed=9)])
    assert compose(job) == 0
    assert TITLE not in capsys.readouterr().err


def test_status_has_the_reasons_of_the_latest_run(job: Path, capsys: pytest.CaptureFixture[str]):
    assert compose(job) == 1
    capsys.readouterr()
    assert status(str(job.parent / "out")) == 1
    assert f"{TITLE}\n  5 x prompt, " in capsys.readouterr().out


def test_a_store_that_is_away_by_then_takes_the_reasons_and_not_the_counts(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def away(_storage: Any) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr(failures, "survey", away)
    assert compose(job) == 1
    said = capsys.readouterr()
    assert "why rows failed cannot be read now: the store is away" in said.err
    assert "5 failed" in said.out
