"""The whole engine on a real Ray, with a fake sampler: what is kept when rows go wrong."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_kit import (
    BAD_ROW,
    EXIT,
    KILLER,
    POISON,
    Watcher,
    fusions_of,
    lora,
    pids,
    request,
    row,
    rows,
)

from manifests.places.locations import LocationError
from manifests.text.problems import InputError, Problem
from pipelines.ledger.failure_budget import FailureBudget, TooManyFailuresError
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.run_record import read_run_records
from pipelines.run import compose_rows
from pipelines.session.resources import Resources
from pipelines.storage.error import StorageError
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import DamagedFileError


def composed(log: Path) -> list[list[int]]:
    """Return the seeds of each call of the sampler."""
    return [[int(seed) for seed in line.split()[1:]] for line in log.read_text().splitlines()]


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_bad_rows_keep_their_neighbours_and_the_account_adds_up(tmp_path: Path):
    """One run with every way a row can go wrong, and what a second one does about it."""
    log = tmp_path / "calls"
    broken = lora("fox", problem="/loras/fox.safetensors is cut off")
    manifest = [
        *rows(10),
        row(3),  # equal to another
        row(20, prompt=BAD_ROW),
        row(21, loras=(lora("cat"), broken)),
        row(22, prompt=POISON),
    ]
    watcher = Watcher()
    account = compose_rows(request(tmp_path / "out", manifest, log=log), watcher, address=None)
    assert account.num_made == 10
    assert account.num_failed == 3
    assert account.num_duplicates == 1
    assert account.num_missing == account.num_doubled == 0
    ledger = read_ledger(LocalStorage(tmp_path / "out"))
    assert {error["stage"] for error in ledger.last_errors.values()} == {
        "prompt",
        "lora",
        "generate",
    }
    assert watcher.phases == [("references", 10), ("images", 13)]
    claims = LocalStorage(tmp_path / "out" / "references").walk("claims")
    assert len(list(claims)) == 2, "one for each LoRA's block of references"
    assert sum(len(receipt.rows) for receipt in watcher.receipts) == 10 + 13
    (record,) = read_run_records(LocalStorage(tmp_path / "out"))
    assert record["state"] == "finished"
    assert record["phases"]["images"]["num_failed"] == 3

    # Every image is scored against references, which a second run finds.
    calls = len(composed(log))
    again = compose_rows(request(tmp_path / "out", manifest, log=log), Watcher(), address=None)
    assert again.num_already_made == 10
    assert again.num_made == 0
    assert again.num_failed == 3
    tried_again = {seed for call in composed(log)[calls:] for seed in call}
    assert tried_again == {20, 22}


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_pool_grows_while_units_wait(tmp_path: Path):
    log = tmp_path / "calls"
    resources = Resources(rows_per_unit=1, actors=1, max_actors=2, cpus_per_actor=0.5)
    options = {"references": None, "resources": resources, "processes": 2, "log": log}
    account = compose_rows(request(tmp_path / "out", rows(8), **options), Watcher(), address=None)
    assert account.num_made == 8
    assert len(pids(log)) == 2
    assert sorted(composed(log)) == [[seed] for seed in range(8)]


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_two_actors_share_the_units_and_a_run_with_more_rows_makes_only_those(tmp_path: Path):
    log = tmp_path / "calls"
    resources = Resources(rows_per_unit=1, actors=2)
    options = {"references": {}, "resources": resources, "processes": 2, "log": log}
    compose_rows(request(tmp_path / "out", rows(8), **options), Watcher(), address=None)
    assert len(pids(log)) == 2
    assert sorted(composed(log)) == [[seed] for seed in range(8)]
    account = compose_rows(request(tmp_path / "out", rows(10), **options), Watcher(), address=None)
    assert (account.num_made, account.num_already_made) == (2, 8)
    assert sorted(composed(log)) == [[seed] for seed in range(10)]
    assert read_ledger(LocalStorage(tmp_path / "out")).num_doubled == 0


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_row_that_ends_its_process_is_found_and_fails_alone(tmp_path: Path):
    log = tmp_path / "calls"
    manifest = [*rows(5), row(9, prompt=EXIT)]
    account = compose_rows(
        request(tmp_path / "out", manifest, log=log, references={}), Watcher(), address=None
    )
    assert (account.num_made, account.num_failed, account.num_missing) == (5, 1, 0)
    ledger = read_ledger(LocalStorage(tmp_path / "out"))
    (error,) = ledger.last_errors.values()
    assert (error["stage"], error["error"]) == ("process", "ProcessDied")
    # Two deaths together with its unit and one alone.
    assert sum(9 in call for call in composed(log)) == 3
    assert list(LocalStorage(tmp_path / "out").walk("attempts")) == []


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_run_of_which_too_many_rows_fail_stops_early_and_goes_on_when_asked(tmp_path: Path):
    log = tmp_path / "calls"
    manifest = [*rows(60, prompt=BAD_ROW), *(row(seed) for seed in range(60, 64))]
    asked = request(
        tmp_path / "out",
        manifest,
        log=log,
        references={},
        seconds_a_row=0.05,
        failure_budget=FailureBudget(share=0.1, min_rows=4),
        resources=Resources(rows_per_unit=2),
    )
    with pytest.raises(TooManyFailuresError, match=r"of 64 images failed, more than the 7") as over:
        compose_rows(asked, Watcher(), address=None)
    account = over.value.account
    assert account.num_failed > 7
    assert account.num_missing > 0
    assert account.num_made + account.num_failed + account.num_missing == 64
    (record,) = read_run_records(LocalStorage(tmp_path / "out"))
    assert record["state"] == "stopped"
    lenient = replace(asked, failure_budget=FailureBudget(share=1.0))
    assert compose_rows(lenient, Watcher(), address=None).num_missing == 0


def test_a_finished_output_needs_no_ray(tmp_path: Path):
    """Asked in a process of its own, where Ray was never imported."""
    code = f"""
import sys
from pathlib import Path
from engine_kit import Watcher, commit, request, rows
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
out = Path({str(tmp_path)!r})
commit(LocalStorage(out), "u1", rows(3))
account = compose_rows(request(out, rows(3)), Watcher(), address=None)
assert account.num_already_made == 3, account
assert "ray" not in sys.modules
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    "error",
    [
        LocationError("the model is gone"),
        StorageError("the store is away"),
        DamagedFileError("out", "rows/u.parquet", "is cut"),
        InputError([Problem(place="p", field="f", problem="is wrong")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_stage_raises_for_the_user_is_raised_without_ray_s_advice(error: Exception):
    from ray.exceptions import RayTaskError

    from pipelines.stages.graph import own_error

    said = str(error)
    error.args = tuple(f"{part}\nFailed to apply UDF: try this" for part in error.args)
    raised = own_error(RayTaskError("map", "trace", error))
    assert type(raised) is type(error)
    assert str(raised) == said


def test_a_fault_of_the_program_stays_ray_s_error():
    from ray.exceptions import RayTaskError

    from pipelines.stages.graph import own_error

    error = RayTaskError("map", "trace", ZeroDivisionError("x"))
    assert own_error(error) is error


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_fusion_that_ends_its_process_fails_its_rows_and_others_are_fused(tmp_path: Path):
    log = tmp_path / "calls"
    cat, dog, killer = lora("cat"), lora("dog"), lora(KILLER)
    manifest = [
        row(0, method="mix-of-show", loras=(cat, dog)),
        row(1, method="mix-of-show", loras=(cat, killer)),
        row(2, method="ziplora", loras=(cat, dog)),
    ]
    wanted = request(tmp_path / "out", manifest, log=log, references={})
    watcher = Watcher()
    account = compose_rows(wanted, watcher, address=None)
    assert (account.num_made, account.num_failed) == (2, 1)
    assert watcher.phases == [("fusions", 3), ("images", 3)]
    (error,) = read_ledger(LocalStorage(tmp_path / "out")).last_errors.values()
    assert error["stage"] == "process"
    assert "the process that fused them died 3 times" in error["message"]
    assert len(fusions_of(log)) == 2 + 3
