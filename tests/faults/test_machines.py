"""The fault matrix, continued: processes, devices, memory, disks and whole machines."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from engine_kit import HUNGRY, LOSES_DEVICE
from faults.kit import Drivers, Record, said
from faults.test_faults import BAD, IN_FLIGHT, UNIT, Make

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

GIB = 1024**3


def engine_pids(ran: Drivers) -> list[int]:
    log = Path(ran.settings.log)
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_actor_that_gets_a_signal_in_its_unit_is_replaced_within_the_run(
    drivers: Make, record: Record, number: signal.Signals
):
    ran = drivers(prompts=BAD, actors=2, seconds_a_row=0.3)
    driver = ran.start()
    assert ran.wait_for_calls(driver, 2)
    time.sleep(random.Random(3).uniform(0.1, 0.5))
    os.kill(engine_pids(ran)[-1], number)
    assert said(driver)["num_missing"] == 0
    assert len(set(engine_pids(ran))) >= 2
    # The unit it was at, and what Ray had ready for it.
    record(f"actor gets {number.name}", ran, ran.add_up(), IN_FLIGHT)


def test_an_actor_that_loses_its_device_is_replaced_within_the_run(drivers: Make, record: Record):
    ran = drivers(prompts={**BAD, "9": LOSES_DEVICE})
    account = ran.run()
    assert (account["num_failed"], account["num_missing"]) == (2, 0)
    assert len(set(engine_pids(ran))) == 3
    record("actor loses its device twice", ran, ran.add_up(), 2 * IN_FLIGHT)


def test_a_row_that_takes_more_memory_than_there_is_fails_alone(drivers: Make, record: Record):
    """Ray's memory monitor kills its process, as the kernel would a little later."""
    memory = psutil.virtual_memory()
    if memory.available < 6 * GIB:
        pytest.skip("needs 6 GiB of free memory")
    limit = (memory.total - memory.available + 3 * GIB) / memory.total
    ran = drivers(
        prompts={"9": HUNGRY},
        environment={"RAY_memory_usage_threshold": f"{limit:.3f}"},
    )
    account = ran.run()
    assert (account["num_failed"], account["num_missing"]) == (1, 0)
    record("row takes more memory than there is", ran, ran.add_up(), 3 * IN_FLIGHT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size, or change its size; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    is_mounted = False

    def sized(size: str) -> Path:
        nonlocal is_mounted
        options = f"size={size}" + (",remount" if is_mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("may not mount a small file system here")
        is_mounted = True
        return folder

    yield sized
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_really_full_ends_the_run_and_with_room_the_next_makes_the_rest(
    drivers: Make, record: Record, small_disk: Callable[[str], Path]
):
    ran = drivers(out=str(small_disk("300k") / "out"), seconds_a_row=0.3, num_rows=60)
    assert ran.run()["outcome"] == "died"
    assert ran.storage.list("rows", ".parquet"), "nothing was committed before it was full"
    small_disk("50m")
    assert ran.run()["outcome"] == "finished"
    record("small disk is full", ran, ran.add_up(), IN_FLIGHT)


def test_a_full_spill_disk_ends_the_run_and_with_room_the_next_makes_the_rest(
    drivers: Make, record: Record, small_disk: Callable[[str], Path]
):
    """Nearly all of Ray's memory is taken, and the disk that it would spill to is small."""
    ran = drivers(
        side_px=1500, seconds_a_row=0.05, spill_folder=str(small_disk("8m")), ballast_mib=85
    )
    outcome = ran.run()["outcome"]
    small_disk("500m")
    assert ran.run(ballast_mib=0)["outcome"] == "finished"
    assert outcome == "died"
    record("small spill disk is full", ran, ran.add_up(), IN_FLIGHT)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "not-replaced"])
def test_a_node_that_is_lost_takes_no_row_with_it(drivers: Make, record: Record, replaced: bool):
    ran = drivers(
        prompts=BAD,
        num_rows=60,
        seconds_a_row=0.2,
        actors=2,
        cpus_per_actor=2.0,
        num_nodes=2,
        lose_node_after=6,
        replace_node=replaced,
    )
    account = ran.run()
    assert account["outcome"] == "finished"
    assert account["num_missing"] == 0
    assert len(set(engine_pids(ran))) >= (3 if replaced else 2)
    what = "replaced" if replaced else "not replaced"
    record(f"node lost, {what}", ran, ran.add_up(), 2 * IN_FLIGHT + UNIT)
