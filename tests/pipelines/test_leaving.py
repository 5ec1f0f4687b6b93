"""A process that leaves early takes no row with it and blames none."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_kit import LOSES_DEVICE, Watcher, request, row, rows

from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.tries import ATTEMPTS_FOLDER, TryMarks
from pipelines.run import compose_rows
from pipelines.stages.leaving import MAX_LOST_DEVICES, device_is_lost, end_without_device
from pipelines.storage.local import LocalStorage


def pids(log: Path) -> list[int]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[0]) for line in lines]


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (ValueError("prompt names no subject"), False),
    ],
)
def test_a_lost_device_is_told_from_what_the_next_row_survives(error: Exception, is_lost: bool):
    assert device_is_lost(error) is is_lost


def test_a_process_without_its_device_ends_until_the_run_has_lost_too_many(tmp_path: Path):
    code = f"""
from pathlib import Path
from pipelines.ledger.tries import TryMarks
from pipelines.stages.leaving import end_without_device
from pipelines.storage.local import LocalStorage
log = TryMarks(storage=LocalStorage(Path({str(tmp_path)!r})), run_id="run")
end_without_device(log, OSError("x"))
print("it goes on")
"""
    for number in range(1, MAX_LOST_DEVICES + 1):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert ended.returncode == 1
        assert f"device lost for the {number}. time" in ended.stderr
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "it goes on\n")
    # Another run counts for itself.
    other = TryMarks(storage=LocalStorage(tmp_path), run_id="other")
    assert other.note_lost_device() == 1


def test_a_process_that_is_terminated_takes_back_its_marks_and_no_others(tmp_path: Path):
    code = f"""
import os, signal, time
from pathlib import Path
from pipelines.ledger.tries import TryMarks
from pipelines.stages.leaving import give_up_when_terminated
from pipelines.storage.local import LocalStorage
log = TryMarks(storage=LocalStorage(Path({str(tmp_path)!r})), run_id="run")
give_up_when_terminated(log.withdraw)
log.begin("unit-1")
log.begin_row("unit-1", "key")
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""
    storage = LocalStorage(tmp_path)
    TryMarks(storage=storage, run_id="run").begin("unit-1")
    ended = subprocess.run([sys.executable, "-c", code])
    assert ended.returncode == 128 + signal.SIGTERM
    assert TryMarks(storage=storage, run_id="run").begin("unit-1").number == 2


def test_marks_of_an_earlier_unit_stay_when_a_process_is_at_the_next(tmp_path: Path):
    log = TryMarks(storage=LocalStorage(tmp_path), run_id="run")
    log.begin("unit-1")
    log.begin("unit-2")
    log.withdraw()
    assert log.begin("unit-1").number == 2
    assert log.begin("unit-2").number == 1


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_lost_device_costs_a_process_and_no_row(tmp_path: Path):
    log = tmp_path / "calls"
    manifest = [*rows(6), row(6, prompt=LOSES_DEVICE)]
    asked = request(tmp_path / "out", manifest, log=log, references=None)
    account = compose_rows(asked, Watcher(), address=None)
    assert (account.num_made, account.num_failed, account.num_missing) == (7, 0, 0)
    assert len(set(pids(log))) == 3
    # Nothing is left of the tries once the run is finished.
    assert not list(LocalStorage(tmp_path / "out").walk(ATTEMPTS_FOLDER))


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_an_actor_whose_machine_is_taken_gives_its_unit_to_another(tmp_path: Path):
    log = tmp_path / "calls"

    def take_the_first() -> None:
        while not pids(log):
            time.sleep(0.05)
        # The call has begun, and its rows take a second.
        os.kill(pids(log)[0], signal.SIGTERM)

    threading.Thread(target=take_the_first, daemon=True).start()
    asked = request(tmp_path / "out", rows(8), log=log, references=None, seconds_a_row=0.3)
    watcher = Watcher()
    account = compose_rows(asked, watcher, address=None)
    assert (account.num_made, account.num_failed, account.num_missing) == (8, 0, 0)
    assert len(set(pids(log))) == 2
    assert len(pids(log)) <= 2 + 1
    assert all(receipt.facts.rows_tried_alone == 0 for receipt in watcher.receipts)
    assert read_ledger(LocalStorage(tmp_path / "out")).num_doubled == 0


def test_a_process_is_left_to_raise_when_too_many_devices_are_lost(tmp_path: Path):
    log = TryMarks(storage=LocalStorage(tmp_path), run_id="run")
    for _ in range(MAX_LOST_DEVICES):
        log.note_lost_device()
    end_without_device(log, RuntimeError("CUDA error"))  # would end this very process
    assert log.note_lost_device() == MAX_LOST_DEVICES + 2
