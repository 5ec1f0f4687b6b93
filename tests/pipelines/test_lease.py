import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import (
    HeldLease,
    LeaseHeldError,
    LeaseLostError,
    acquire,
)
from pipelines.leases.lease_record import earlier_leases, latest_lease
from pipelines.process_identity import is_gone, this_process
from pipelines.storage.storage import Storage, open_storage

NEVER_BEATS = LeaseTimes(beat_s=1000.0, silence_s=30.0)
QUICK = LeaseTimes(beat_s=0.02, silence_s=0.2)


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return open_storage(str(tmp_path / "out"))
    return open_storage(request.getfixturevalue("s3_uri"))


def claim(
    storage: Storage,
    run_id: str,
    *,
    times: LeaseTimes = NEVER_BEATS,
    notes: list[str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> HeldLease:
    note = (lambda _: None) if notes is None else notes.append
    return acquire(storage, run_id, times=times, note=note, sleep=sleep)


def test_runs_that_end_follow_one_another_without_waiting(storage: Storage):
    for number in range(1, 4):
        with claim(storage, f"run-{number}", sleep=pytest.fail) as lease:
            assert lease.fence.epoch == number
            lease.fence.check()
            assert latest_lease(storage).state == "live"
        assert latest_lease(storage).state == "stopped"


def test_a_second_run_is_refused_by_name_and_time_while_the_first_lives(storage: Storage):
    with claim(storage, "first", times=QUICK):
        began = latest_lease(storage).began_at
        sentence = f"is being written by run first on .*, which began {began[:10]}.* and lives"
        with pytest.raises(LeaseHeldError, match=sentence):
            claim(storage, "second", times=LeaseTimes(beat_s=0.5, silence_s=30.0))
        assert latest_lease(storage).run_id == "first"


def test_a_run_that_is_silent_for_long_enough_is_taken_over_and_finds_out(storage: Storage):
    slept: list[float] = []
    notes: list[str] = []
    with claim(storage, "first") as first:
        second = claim(storage, "second", notes=notes, sleep=slept.append)
        assert sum(slept) == NEVER_BEATS.silence_s
        assert second.fence.epoch == 2
        assert second.predecessor.run_id == "first"
        (note,) = notes
        assert "belongs to run first on" in note
        second.fence.check()
        with pytest.raises(LeaseLostError, match=r"was taken over by run second on"):
            first.fence.check()
    assert latest_lease(storage).run_id == "second"
    assert latest_lease(storage).state == "live"


def test_a_run_that_lost_its_lease_beats_no_more(storage: Storage):
    with claim(storage, "first", times=QUICK) as first:
        assert storage.put_if_absent("leases/epoch-000000002.json", storage.read(_first()))
        thread = first._heartbeat._thread
        thread.join(10)
        assert not thread.is_alive()


def test_of_eight_that_claim_a_free_output_at_once_one_gets_it(storage: Storage):
    with ExitStack() as leases:

        def attempt(number: int) -> bool:
            try:
                lease = claim(storage, f"run-{number}", times=QUICK, sleep=_refuse)
            except LeaseHeldError:
                return False
            leases.enter_context(lease)
            return True

        def _refuse(_: float) -> None:
            raise LeaseHeldError

        with ThreadPoolExecutor(8) as pool:
            wins = list(pool.map(attempt, range(8)))
    assert wins.count(True) == 1


def test_a_run_whose_process_is_gone_from_this_machine_is_taken_over_at_once(tmp_path: Path):
    if not this_process():
        pytest.skip("this system does not tell when a process started")
    code = f"""
import os
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import acquire
from pipelines.storage.storage import open_storage
acquire(open_storage({str(tmp_path)!r}), "dead", times=LeaseTimes(), note=print).__enter__()
os._exit(9)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    assert ended.returncode == 9
    storage = open_storage(str(tmp_path))
    assert latest_lease(storage).state == "live"
    lease = claim(storage, "next", sleep=pytest.fail)
    assert lease.predecessor.run_id == "dead"


def test_a_process_is_gone_only_if_it_ran_here():
    mine = this_process()
    if not mine:
        pytest.skip("this system does not tell when a process started")
    place, pid, started = mine.split()
    assert not is_gone(mine)
    assert is_gone(f"{place} {pid} {int(started) - 1}"), "its id was used again"
    assert not is_gone(f"elsewhere {pid} {int(started) - 1}")
    assert not is_gone("")


def test_runs_are_looked_back_at_as_far_as_their_workers_may_still_commit(tmp_path: Path):
    storage = open_storage(str(tmp_path))
    for run_id in ("a", "b", "c", "d"):
        with claim(storage, run_id) as lease:
            if run_id == "b":
                lease.sealed()
            if run_id == "c":
                lease.finished()
    assert [record.run_id for record in earlier_leases(storage, 5)] == ["d", "b"]
    assert [record.run_id for record in earlier_leases(storage, 2)] == ["a"]


def _first() -> str:
    return "leases/epoch-000000001.json"
