"""The fault matrix: whatever dies or breaks, every row ends made or failed, once.

Marked ``faults`` are the tests that only ``make faults`` runs; the others are its quick part.
"""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from engine_kit import BAD_ROW, EXIT, POISON
from fault_proxy import FAULTS, FaultPlan, fault_proxy
from faults.killing_storage import POINTS, UNIT_POINTS
from faults.kit import Drivers, Record, go_on, manifest, said, stop
from s3_kit import S3Server

from pipelines.ledger.ledger import read_ledger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

Make = Callable[..., Drivers]

UNIT = 4
IN_FLIGHT = 6 * UNIT
"""Rows that one actor may have begun or finished and not seen committed: Ray gives an actor some
units ahead, and some wait between stages."""

QUICK_POINTS = ("before-commit",)
BAD = {"1": BAD_ROW, "6": BAD_ROW}
"""Some rows fail, so that there is a table of failures to lose."""


def slow(names: tuple[str, ...]) -> list[object]:
    """Mark all but the quick points for ``make faults``."""
    return [
        name if name in QUICK_POINTS else pytest.param(name, marks=pytest.mark.faults)
        for name in names
    ]


@pytest.mark.parametrize("point", slow(tuple(POINTS)))
def test_a_driver_killed_at_a_point_loses_and_doubles_nothing(
    drivers: Make, record: Record, point: str
):
    ran = drivers(prompts=BAD, seconds_a_row=0.15)
    assert ran.run(point=point, victim="driver")["outcome"] == "died"
    before = read_ledger(ran.storage).made
    assert ran.run()["outcome"] == "finished"
    assert before <= read_ledger(ran.storage).made
    # The two bad rows are tried once more by the second run.
    record(f"driver killed {point}", ran, ran.add_up(), IN_FLIGHT + 2)


@pytest.mark.faults
@pytest.mark.parametrize("point", UNIT_POINTS)
def test_a_worker_killed_at_a_point_is_replaced_within_the_run(
    drivers: Make, record: Record, point: str
):
    ran = drivers(prompts=BAD, actors=2, seconds_a_row=0.15)
    account = ran.run(point=point, victim="self")
    assert account["outcome"] == "finished"
    assert account["num_missing"] == 0
    record(f"worker killed {point}", ran, ran.add_up(), 2 * IN_FLIGHT)


@pytest.mark.faults
@pytest.mark.timeout(2400)
def test_a_driver_killed_at_twenty_random_moments_ends_with_every_row(
    drivers: Make, record: Record
):
    moments = random.Random(5)
    ran = drivers(num_rows=600, seconds_a_row=0.1, prompts=BAD)
    num_kills = 0
    while num_kills < 20:
        driver = ran.start()
        # Counted in units begun, so that a slow machine's drivers are killed at work too.
        if not ran.wait_for_calls(driver, moments.randint(0, 8)):
            break
        time.sleep(moments.uniform(0.0, 0.5))
        driver.send_signal(signal.SIGKILL)
        num_kills += said(driver)["outcome"] == "died"
    assert num_kills >= 10, "the machine is so fast that it needs more rows"
    account = ran.run()
    assert account["outcome"] == "finished"
    assert account["num_missing"] == 0
    bound = num_kills * IN_FLIGHT
    record(f"driver killed at {num_kills} random moments", ran, ran.add_up(), bound)


def kill_at_a_unit(ran: Drivers) -> None:
    """Start a driver, and kill it once it has begun a unit."""
    driver = ran.start()
    assert ran.wait_for_calls(driver, 1)
    driver.send_signal(signal.SIGKILL)
    assert said(driver)["outcome"] == "died"


@pytest.mark.faults
def test_no_row_is_blamed_for_twenty_kills_of_the_driver_at_one_unit(drivers: Make, record: Record):
    ran = drivers(num_rows=UNIT, seconds_a_row=0.5)
    for _ in range(20):
        kill_at_a_unit(ran)
    account = ran.run()
    assert (account["outcome"], account["num_made"]) == ("finished", UNIT)
    record("driver killed 20 times at one unit", ran, ran.add_up(), 20 * UNIT)


@pytest.mark.faults
def test_a_row_that_kills_its_process_is_blamed_though_the_driver_was_killed_at_it(
    drivers: Make, record: Record
):
    ran = drivers(num_rows=UNIT, seconds_a_row=0.5, prompts={"1": EXIT})
    for _ in range(3):
        kill_at_a_unit(ran)
    account = ran.run()
    assert (account["num_made"], account["num_failed"]) == (UNIT - 1, 1)
    (error,) = read_ledger(ran.storage).last_errors.values()
    assert (error["error"], error["seed"]) == ("ProcessDied", 1)
    record("a row that ends its process, driver killed at it", ran, ran.add_up(), 10 * UNIT)


def test_a_second_driver_is_refused_while_the_first_lives(drivers: Make, record: Record):
    ran = drivers(num_rows=24, seconds_a_row=0.2)
    first = ran.start()
    ran.wait_for_units(first, 1)
    refused = ran.run()
    assert refused["outcome"] == "LeaseHeldError"
    assert "is being written by run" in refused["said"]
    assert said(first)["outcome"] == "finished"
    record("second driver while the first lives", ran, ran.add_up(), 0)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="same-manifest", marks=pytest.mark.faults),
        pytest.param({"rows_per_unit": 3, "num_rows": 25}, id="changed-manifest"),
    ],
)
def test_a_driver_stopped_past_its_lease_is_fenced_when_it_goes_on(
    drivers: Make, record: Record, changes: dict[str, int]
):
    ran = drivers(num_rows=24, seconds_a_row=0.2)
    first = ran.start()
    ran.wait_for_units(first, 2)
    stop(first)
    assert ran.run(**changes)["outcome"] == "finished"
    images = set(ran.storage.walk("images"))
    units = ran.storage.list("rows", ".parquet")
    go_on(first)
    lost = said(first)
    assert lost["outcome"] == "LeaseLostError"
    assert "was taken over by run" in lost["said"]
    assert ran.storage.list("rows", ".parquet") == units
    assert set(ran.storage.walk("images")) == images
    what = "driver stopped past its lease" + (", manifest changed" if changes else "")
    # The stopped driver's workers go on until they ask whether they may.
    record(what, ran, ran.add_up(replace(ran.settings, **changes)), 2 * IN_FLIGHT)


@pytest.mark.faults
def test_rows_that_fail_in_every_way_keep_their_neighbours_and_end_in_quarantine(
    drivers: Make, record: Record
):
    ran = drivers(
        prompts={"2": BAD_ROW, "9": POISON, "14": EXIT},
        broken_loras={"4": "corrupt", "5": "missing"},
        repeated=(0, 3),
    )
    account = ran.run()
    assert account["num_failed"] == 5
    assert account["num_duplicates"] == 2
    assert account["num_missing"] == 0
    for _ in range(3):
        account = ran.run()
    assert (account["num_failed"], account["num_given_up"]) == (5, 5)
    waste = ran.waste()
    assert ran.run()["num_given_up"] == 5
    assert ran.waste() == waste, "rows that were given up cost nothing"
    # Three attempts of three deaths, each with the neighbours that share its unit.
    record("poison, exit, bad, corrupt, missing, duplicate rows", ran, ran.add_up(), 12 * UNIT)


@pytest.mark.faults
def test_a_finished_run_makes_nothing_again_and_changed_rows_are_other_rows(
    drivers: Make, record: Record
):
    ran = drivers(seconds_a_row=0.15)
    ran.run()
    assert ran.run()["num_already_made"] == 24
    assert ran.waste() == 0
    account = ran.run(prompts={"3": "another prompt"}, broken_loras={"7": "ab" * 32})
    assert (account["num_made"], account["num_already_made"]) == (2, 22)
    changed = replace(ran.settings, prompts={"3": "another prompt"}, broken_loras={"7": "ab" * 32})
    assert {one.row_id for one in manifest(changed)} == {
        one.row_id for one in manifest(ran.settings)
    }
    assert len(read_ledger(ran.storage).made) == 26
    record("finished run again; prompt and LoRA file changed", ran, ran.add_up(changed), 2)


@pytest.mark.faults
def test_an_actor_that_cannot_start_ends_the_run_and_the_next_one_makes_all(
    drivers: Make, record: Record
):
    ran = drivers(broken_start=True)
    assert ran.run()["outcome"] == "died"
    assert ran.run()["outcome"] == "finished"
    record("actor that cannot start", ran, ran.add_up(), 0)


@pytest.mark.faults
@pytest.mark.parametrize("point", ["after-image", "before-commit"])
def test_a_full_disk_ends_the_run_and_the_next_one_makes_the_rest(
    drivers: Make, record: Record, point: str
):
    ran = drivers(seconds_a_row=0.15)
    assert ran.run(point=point, victim="disk")["outcome"] == "died"
    assert ran.run()["outcome"] == "finished"
    record(f"disk full {point}", ran, ran.add_up(), IN_FLIGHT)


@pytest.mark.parametrize(
    "fault",
    [
        name if name == "lost-answer" else pytest.param(name, marks=pytest.mark.faults)
        for name in FAULTS
    ],
)
def test_a_store_that_fails_one_request_in_ten_changes_nothing(
    drivers: Make,
    record: Record,
    s3_server: S3Server,
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
):
    with fault_proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        ran = drivers(out=s3_uri, prompts=BAD, silence_s=20.0, beat_s=1.0)
        proxy.plan = FaultPlan(fault=fault, share=0.1)
        account = ran.run()
        assert account["outcome"] == "finished"
        assert proxy.plan.num_failed > 3
        proxy.plan = FaultPlan()
        record(f"S3: {fault} in 1 of 10 requests", ran, ran.add_up(), 0)


@pytest.mark.faults
def test_credentials_that_expire_end_the_run_and_new_ones_go_on(
    drivers: Make,
    record: Record,
    s3_server: S3Server,
    s3_uri: str,
    monkeypatch: pytest.MonkeyPatch,
):
    with fault_proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        ran = drivers(out=s3_uri, seconds_a_row=0.2)
        driver = ran.start()
        ran.wait_for_units(driver, 1)
        proxy.plan = FaultPlan(fault="expired")
        assert said(driver)["outcome"] == "died"
        proxy.plan = FaultPlan()
        assert ran.run()["outcome"] == "finished"
        record("S3: credentials expire", ran, ran.add_up(), IN_FLIGHT)


@pytest.mark.faults
def test_a_driver_on_s3_killed_between_images_and_commit_goes_on(
    drivers: Make, record: Record, s3_uri: str
):
    ran = drivers(out=s3_uri, prompts=BAD, seconds_a_row=0.15)
    assert ran.run(point="before-commit", victim="driver")["outcome"] == "died"
    assert ran.run()["outcome"] == "finished"
    record("driver killed before-commit", ran, ran.add_up(), IN_FLIGHT + 2)
