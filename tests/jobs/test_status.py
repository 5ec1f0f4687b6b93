from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, NOW, commit, row, rows

from jobs.method_table import method_table
from jobs.status import status
from pipelines.accounting import take_account
from pipelines.ledger import read_ledger
from pipelines.output_table import read_rows
from pipelines.run_record import PhaseTotals, RunRecord, new_run_id, write_run_record
from pipelines.storage import LocalStorage


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "run_id": new_run_id(NOW),
        "started_at": NOW.isoformat(),
        "num_rows": 3,
        "job": {},
        "digests": {},
    }
    return RunRecord(**(values | changes))


def test_a_killed_run_says_what_is_committed_and_how_to_go_on(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    phases = {"images": PhaseTotals(num_planned=3, num_units=2, num_made=2)}
    write_run_record(output, record(phases=phases))
    commit(output, "u1", rows(2))
    assert status(output.uri) == 1
    told = capsys.readouterr().out
    assert "2 images, 0 rows failed" in told
    assert "images: 2 made, 0 failed of 3 planned" in told
    assert "a run that was killed says so too; the same command goes on" in told


def test_a_finished_output_is_0_and_one_with_failed_rows_tells_why(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    empty = read_ledger(output)
    commit(output, "u1", rows(3))
    keys = [one.key for one in rows(3)]
    account = take_account(keys, before=empty, after=read_ledger(output))
    write_run_record(output, record(state="finished", account=account))
    assert status(output.uri) == 0
    commit(output, "u2", [row(9, prompt=BAD_ROW)])
    assert status(output.uri) == 1
    assert "1 x prompt, PromptError: no subject in it" in capsys.readouterr().out


def test_a_folder_without_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert status(str(tmp_path / "none")) == 1
    assert "none: no run has written here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_table_has_a_line_a_method(output: LocalStorage):
    commit(output, "u1", [row(0), row(1), row(2, method="merge")])
    table = method_table(read_rows(output, ["method", "seconds", "dino_min"]))
    header, *lines = table.splitlines()
    assert header.split() == ["method", "images", "s/image", "DINO", "min"]
    assert [line.split() for line in lines] == [
        ["clora", "2", "0.01", "-"],
        ["merge", "1", "0.01", "-"],
    ]
