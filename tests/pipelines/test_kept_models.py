"""Actors keep their base model over the phases of a run, and end with it."""

import gc
import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from engine_kit import (
    BASE_MODEL,
    FakeModelHost,
    Watcher,
    fusions_of,
    loads_of,
    lora,
    pids,
    request,
    row,
)

from clora_core.recipe.row import Row
from pipelines.leases.claims import Claimant
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import present
from pipelines.ledger.ledger import read_ledger
from pipelines.run import compose_rows
from pipelines.run_plan import plan_references, plan_rows
from pipelines.session.resources import Resources
from pipelines.storage.error import StorageError
from pipelines.storage.local import LocalStorage
from pipelines.units.receipts import Phase

CAT, DOG = lora("cat"), lora("dog")


def seeds_made(log: Path) -> Counter[str]:
    """Return how often each seed was sampled."""
    calls = (line.split()[1:] for line in log.read_text().splitlines())
    return Counter(seed for call in calls if call[:1] != ["fused"] for seed in call)


def of_all_phases(num_rows: int) -> list[Row]:
    """Return rows that need references and, one of them, a fused adapter."""
    rows = [row(seed) for seed in range(100, 100 + num_rows)]
    return [row(99, method="mix-of-show", loras=(CAT, DOG)), *rows]


def is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    return False


def wait_until_gone(processes: set[str]) -> None:
    deadline = time.monotonic() + 30.0
    while not all(map(is_gone, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_run_of_three_phases_loads_the_base_model_once_an_actor(tmp_path: Path):
    log = tmp_path / "calls"
    resources = Resources(rows_per_unit=1, actors=2, cpus_per_actor=0.5)
    asked = request(tmp_path / "out", of_all_phases(6), log=log, resources=resources, processes=2)
    watcher = Watcher()
    account = compose_rows(asked, watcher, address=None)
    assert [phase for phase, _ in watcher.phases] == list(Phase)
    assert (account.num_made, account.num_missing, account.num_doubled) == (7, 0, 0)
    assert len(fusions_of(log)) == 1
    loads = loads_of(log)
    assert len(loads) == len(set(loads)) == 2
    assert {pid for pid, _ in loads} == pids(log)
    assert {digest for _, digest in loads} == {BASE_MODEL}
    # In a machine that others share nothing is held after the run.
    wait_until_gone(pids(log))


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_tickets_are_torn_in_a_stage_of_their_own_before_actors_that_take_nothing():
    from ray.data import ActorPoolStrategy

    from pipelines.stages.tickets import FEW_TICKETS, WHOLE_BLOCKS, tickets_of_one_phase

    class Same:
        def __call__(self, batch: pa.Table) -> pa.Table:
            return batch

    number = FEW_TICKETS + 1
    made = (
        tickets_of_one_phase(number)
        .map_batches(Same, compute=ActorPoolStrategy(size=1), num_cpus=0, **WHOLE_BLOCKS)
        .materialize()
    )
    assert sorted(row["ticket"] for row in made.take_all()) == list(range(number))
    assert made.num_blocks() == number
    assert "MapBatches(_tear)" in made.stats()
    assert "MapBatches(_tear)->" not in made.stats()


class Releasing(Watcher):
    """Looks whether a run that waits for another one has let its actors go; then ends the other."""

    def __init__(self, log: Path, other: ExitStack) -> None:
        super().__init__()
        self._log = log
        self._other = other
        self.num_waits = 0

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith("waiting for"):
            self.num_waits += 1
            wait_until_gone(pids(self._log))
            self._other.close()


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_run_that_waits_for_another_one_holds_no_model_meanwhile(tmp_path: Path):
    log = tmp_path / "calls"
    times = LeaseTimes(beat_s=0.2, silence_s=60.0)
    asked = request(tmp_path / "out", of_all_phases(2), log=log, lease_times=times)
    references = plan_references(asked, plan_rows(asked, read_ledger(asked.storage)))
    assert references is not None
    held, others = references.unit_ids[0], references.unit_ids[1:]
    storage = asked.references_storage
    with ExitStack() as other:
        other.enter_context(present(storage, "other-run", times))
        claimant = Claimant(storage=storage, run_id="other-run")
        assert not claimant.claim(held, lambda: False).held_by
        watcher = Releasing(log, other)
        account = compose_rows(asked, watcher, address=None)
    assert watcher.num_waits == 1
    assert (account.num_made, account.num_missing, account.num_doubled) == (3, 0, 0)
    made = [receipt.unit_id for receipt in watcher.receipts]
    assert sorted(made[: len(others) + 1]) == sorted([*others, held])
    # One actor before the wait, and one after it for all that was left.
    loads = loads_of(log)
    assert len(loads) == len(set(loads)) == 2


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_what_a_model_host_raises_for_the_user_reaches_the_driver_as_itself(tmp_path: Path):
    class Away(FakeModelHost):
        def hold(self, _base_model_digest: str) -> None:
            raise StorageError("the store is away")

    asked = request(tmp_path / "out", [row(0)], references={}, load_model_host=lambda _: Away())
    with pytest.raises(StorageError) as raised:
        compose_rows(asked, Watcher(), address=None)
    assert str(raised.value) == "the store is away"
    # Its traceback holds the graph, and the next test wants the graph's processors.
    del raised
    gc.collect()


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_an_actor_that_is_killed_in_a_later_phase_costs_one_more_load_and_nothing_is_doubled(
    tmp_path: Path,
):
    log = tmp_path / "calls"
    killed: list[str] = []

    def kill_in_the_second_phase() -> None:
        while not any(seed in seeds_made(log) for seed in ("100", "101", "102")):
            time.sleep(0.05)
        killed.extend(pids(log))
        os.kill(int(killed[0]), signal.SIGKILL)

    log.touch()
    thread = threading.Thread(target=kill_in_the_second_phase, daemon=True)
    thread.start()
    manifest = [row(seed) for seed in range(100, 106)]
    resources = Resources(rows_per_unit=3)
    asked = request(tmp_path / "out", manifest, log=log, resources=resources, seconds_a_row=0.2)
    watcher = Watcher()
    account = compose_rows(asked, watcher, address=None)
    thread.join()
    assert (account.num_made, account.num_failed, account.num_missing) == (6, 0, 0)
    assert read_ledger(LocalStorage(tmp_path / "out")).num_doubled == 0
    assert len(killed) == 1
    assert [digest for _, digest in loads_of(log)] == [BASE_MODEL] * 2
    assert len(pids(log)) == 2
    # What was being sampled was sampled again, and nothing else; references have seeds from 0.
    made = {seed: count for seed, count in seeds_made(log).items() if int(seed) >= 100}
    calls = Counter(tuple(line.split()[1:]) for line in log.read_text().splitlines())
    (again,) = (call for call, count in calls.items() if count > 1 and int(call[0]) >= 100)
    assert made == Counter({str(seed): 1 for seed in range(100, 106)}) + Counter(again)
    assert len(list((tmp_path / "out" / "images").rglob("*.png"))) == 6
