"""What ``clora status`` says of the rows that are asked for now, whatever else is in the output."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, NOW, Watcher, commit, lora, request, row, rows
from inline_engine import run_inline

from clora_core.recipe.row import Row
from jobs.commands.status import status
from jobs.console.account_line import account_line
from jobs.console.method_table import method_table
from manifests.rows.stored_rows import StoredRows
from pipelines.ledger.account import Account, take_account
from pipelines.ledger.asked_rows import write_asked
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.run_record import (
    PhaseTotals,
    RunRecord,
    new_run_id,
    read_run_records,
    write_run_record,
)
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.output_table import read_output_rows


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


def killed(output: LocalStorage, manifest: list[Row], **changes: Any) -> None:
    """Leave the record of a run of ``manifest`` that was killed."""
    name = write_asked(output, manifest)
    write_run_record(output, record(manifest=name, num_rows=len(manifest), **changes))


def test_a_killed_run_says_what_is_committed_and_that_the_same_command_continues(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    phases = {"images": PhaseTotals(num_planned=3, num_units=2, num_made=2)}
    killed(output, rows(3), phases=phases)
    commit(output, "u1", rows(2))
    assert status(output.uri) == 1
    said = capsys.readouterr().out
    assert "2 of 3 rows made, 0 failed, 1 not made yet" in said
    assert "images: 2 made, 0 failed of 3 planned" in said
    assert "a run that was killed says so too; the same command continues it" in said


def test_images_of_earlier_manifests_are_not_taken_for_those_of_this_one(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    commit(output, "u1", [*rows(8), row(20, prompt=BAD_ROW)])
    killed(output, [row(index, method="merge") for index in range(8)])
    assert status(output.uri) == 1
    said = capsys.readouterr().out
    assert "0 of 8 rows made, 0 failed, 8 not made yet" in said
    assert "beside them, of earlier manifests: 8 images, 1 rows that failed" in said
    assert "no subject in it" not in said


def test_a_finished_output_is_0_and_one_with_failed_rows_says_why(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    manifest = [*rows(3), row(9, prompt=BAD_ROW), row(1)]
    killed(output, manifest)
    commit(output, "u1", rows(3))
    commit(output, "u2", [manifest[3]])
    assert status(output.uri) == 1
    said = capsys.readouterr().out
    assert "3 of 4 rows made, 1 failed, 0 not made yet (1 more are equal to another row)" in said
    assert "1 x prompt, PromptError: no subject in it" in said
    killed(output, rows(3), run_id="99990101T000000Z-later")
    assert status(output.uri) == 0


def test_a_record_of_an_earlier_release_is_judged_by_its_account(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    commit(output, "u1", rows(3))
    write_run_record(output, record())
    assert status(output.uri) == 1, "it was killed: nothing says that all is made"
    keys = StoredRows.of(rows(3)).tables()
    ledger = read_ledger(output)
    account = take_account(keys, before=ledger, after=ledger)
    write_run_record(output, record(run_id="99990101T000000Z-x", state="finished", account=account))
    assert status(output.uri) == 0
    assert "3 images, 0 rows failed" in capsys.readouterr().out


def test_a_missing_and_an_empty_image_are_seen(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    killed(output, rows(3))
    commit(output, "u1", rows(3))
    assert status(output.uri) == 0
    output.delete(image_name(row(0).key))
    output.put(image_name(row(1).key), b"")
    capsys.readouterr()
    assert status(output.uri) == 1
    assert "2 image file(s) are missing or of another size (images/" in capsys.readouterr().out


def test_a_damaged_record_is_named_and_nothing_passes_for_all_made(
    output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    killed(output, rows(3))
    commit(output, "u1", rows(3))
    output.put("runs/99990101T000000Z-later.json", b"")
    assert status(output.uri) == 1
    said = capsys.readouterr()
    assert "runs/99990101T000000Z-later.json is damaged" in said.err
    assert "3 of 3 rows made" in said.out


def test_a_folder_without_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert status(str(tmp_path / "none")) == 1
    assert "none: no run has written here" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


class Runs:
    """Runs of the whole engine on one output, without Ray."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def compose(self, manifest: list[Row], **changes: Any) -> Account:
        asked = request(self._folder / "out", manifest, references={}, **changes)
        return compose_rows(asked, Watcher(), address=None)

    def retry(self, manifest: list[Row]) -> Account:
        return self.compose(manifest, only_failed=True)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    run_inline(monkeypatch)
    return Runs(tmp_path)


BROKEN = lora("fox", problem="/loras/fox.safetensors is cut off")
CORRECTED = lora("fox")


@pytest.mark.parametrize("way", ["compose", "retry"])
@pytest.mark.parametrize("mistake", ["prompt", "LoRA file"])
def test_after_a_correction_all_is_made_and_status_and_retry_agree(
    runs: Runs,
    output: LocalStorage,
    capsys: pytest.CaptureFixture[str],
    mistake: str,
    way: str,
):
    wrong = row(5, prompt=BAD_ROW) if mistake == "prompt" else row(5, loras=(lora(), BROKEN))
    right = row(5) if mistake == "prompt" else row(5, loras=(lora(), CORRECTED))
    assert right.key != wrong.key, "a corrected row is another row"
    assert runs.compose([*rows(2), wrong]).num_failed == 1
    assert status(output.uri) == 1
    account = getattr(runs, way)([*rows(2), right])
    assert (account.num_made, account.num_failed, account.num_missing) == (1, 0, 0)
    assert account.is_complete
    capsys.readouterr()
    assert status(output.uri) == 0
    said = capsys.readouterr().out
    assert "3 of 3 rows made, 0 failed, 0 not made yet" in said
    assert "of earlier manifests: 0 images, 1 rows that failed" in said
    again = runs.retry([*rows(2), right])
    assert (again.num_made, again.num_missing, again.num_skipped) == (0, 0, 3)


def test_retry_makes_no_row_that_was_asked_for_and_never_tried(runs: Runs):
    bad = row(9, prompt=BAD_ROW)
    manifest = [*rows(3), bad]
    runs.compose([bad])
    runs.compose([*manifest[:1], bad])
    # As a run that was killed before it came to rows 1 and 2.
    killed(LocalStorage(runs._folder / "out"), manifest, run_id="99990101T000000Z-killed")
    account = runs.retry(manifest)
    assert (account.num_made, account.num_missing, account.num_failed) == (0, 2, 1)
    assert "2 not made yet (`clora compose` makes them)" in account_line(
        account, "out", only_failed=True
    )


def test_a_run_with_nothing_to_make_records_a_manifest_that_is_another_one_and_no_other(
    runs: Runs, output: LocalStorage
):
    bad = row(9, prompt=BAD_ROW)
    runs.compose([*rows(3), bad])
    assert status(output.uri) == 1
    assert runs.compose(rows(3)).is_complete
    assert status(output.uri) == 0, "the row that failed is no longer asked for"
    records = read_run_records(output)
    assert [one["state"] for one in records] == ["finished", "finished"]
    runs.compose(rows(3))
    assert read_run_records(output) == records


def test_the_list_of_a_manifest_that_was_damaged_is_written_again(
    runs: Runs, output: LocalStorage, capsys: pytest.CaptureFixture[str]
):
    runs.compose(rows(3))
    (name,) = output.list("manifests", ".parquet")
    output.put(name, b"")
    assert status(output.uri) == 1
    assert f"{name} is damaged" in capsys.readouterr().err
    runs.compose(rows(3))
    assert status(output.uri) == 0


def test_lost_images_are_written_again_by_the_next_run_and_nothing_is_sampled(
    tmp_path: Path, runs: Runs, output: LocalStorage
):
    manifest = rows(6)
    runs.compose(manifest)
    content = {image_name(one.key): output.read(image_name(one.key)) for one in manifest}
    first, second, *_ = content
    output.delete(first)
    output.put(second, content[second][:-1])
    log, watcher = tmp_path / "calls", Watcher()
    asked = replace(request(tmp_path / "out", manifest, log=log), references={})
    account = compose_rows(asked, watcher, address=None)
    assert (account.num_made, account.num_already_made) == (0, 6)
    assert not log.exists()
    assert {name: output.read(name) for name in content} == content
    (note,) = watcher.notes
    assert note.startswith(f"2 image file(s) of {output.uri} were missing or of another size")


def test_the_table_has_a_line_a_method(output: LocalStorage):
    commit(output, "u1", [row(0), row(1), row(2, method="merge")])
    table = method_table(read_output_rows(output, ["method", "seconds", "dino_min"]))
    header, *lines = table.splitlines()
    assert header.split() == ["method", "images", "s/image", "DINO", "min"]
    assert [line.split() for line in lines] == [
        ["clora", "2", "0.01", "-"],
        ["merge", "1", "0.01", "-"],
    ]
