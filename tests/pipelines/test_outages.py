"""A store that goes away at each phase of a run, for a moment or for good.

Without Ray, and with a patience of a moment; ``tests/faults/test_outages.py`` has the real times.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BASE_MODEL, SAMPLER, SIDE_PX, Watcher, request, rows
from fault_proxy import FaultPlan, FaultProxy, fault_proxy, outage
from inline_engine import run_inline
from s3_kit import S3Server

from manifests.places import patience
from pipelines.leases import lease, makers
from pipelines.ledger.ledger import read_ledger
from pipelines.planning.references import ReferenceSettings
from pipelines.run import compose_rows
from pipelines.storage.error import PlaceError, StorageError
from pipelines.storage.storage import open_storage
from pipelines.upkeep.verify import verify_units

REPOSITORY = Path(__file__).parents[2]
NUM_ROWS = 4
NUM_REFERENCES = 5
"""Of each of the two LoRAs."""

PHASES = {
    "the ledger is read": ("GET", "rows"),
    "the output is claimed": ("PUT", "/leases/"),
    "the manifest is noted": ("PUT", "/manifests/"),
    "the run's record begins": ("PUT", "/runs/"),
    "the plan is written": ("PUT", "/plans/"),
    "a reference's image is written": ("PUT", "/references/images/"),
    "a unit of references is committed": ("PUT", "/references/rows/"),
    "the centroids are written": ("PUT", "centroids"),
    "the centroids are read": ("GET", "centroids"),
    "a unit is begun": ("PUT", "/attempts/"),
    "an image is written": ("PUT", "OUT/images/"),
    "a unit is committed": ("PUT", "OUT/rows/"),
    "the account is kept": ("PUT", "metrics.prom"),
    "the card is written": ("PUT", "README.md"),
}
"""The request that the store goes away at: its method and a part of its name."""


QUICK = (
    "the output is claimed",
    "a unit of references is committed",
    "the centroids are read",
    "an image is written",
    "a unit is committed",
    "the card is written",
)
"""Phases of ``make test``; ``make faults`` has all."""


@pytest.fixture
def proxy(
    s3_server: S3Server,
    s3_uri: str,  # noqa: ARG001 - it sets the environment that is changed here
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultProxy]:
    run_inline(monkeypatch)
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(patience, "SHORT_S", 0.02)
    with fault_proxy(s3_server.port) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def compose(out: str, retry_s: float) -> None:
    """Make the rows, and the references of their LoRAs, and say where they are."""
    how = ReferenceSettings(num_references=NUM_REFERENCES, sampler=SAMPLER, side_px=SIDE_PX)
    changes: dict[str, Any] = {
        "storage": open_storage(out, retry_s=retry_s),
        "references_storage": open_storage(f"{out}/references", retry_s=retry_s),
        "references": {BASE_MODEL: how},
    }
    asked = request(Path("/unused"), rows(NUM_ROWS), **changes)
    account = compose_rows(asked, Watcher(), address=None)
    assert account.is_complete


def whole(out: str) -> None:
    """Check that every row and reference is made once, with its image."""
    for place, num_rows in ((out, NUM_ROWS), (f"{out}/references", 2 * NUM_REFERENCES)):
        storage = open_storage(place)
        ledger = read_ledger(storage)
        assert (len(ledger.made), ledger.num_doubled) == (num_rows, 0)
        assert [text for check in verify_units(storage) for text in check.problems] == []


@pytest.fixture(scope="module")
def ended_process() -> str:
    """The identity of a process of this machine that is gone, as that of a killed run."""
    code = "from pipelines.process_identity import this_process; print(this_process())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "phase",
    [
        phase if phase in QUICK else pytest.param(phase, marks=pytest.mark.faults)
        for phase in PHASES
    ],
)
def test_a_store_that_goes_away_for_a_moment_is_not_seen_and_for_good_ends_with_a_sentence_while(
    proxy: FaultProxy,
    s3_uri: str,
    ended_process: str,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
):
    method, part = PHASES[phase]
    short, ever = f"{s3_uri}/short", f"{s3_uri}/ever"
    at = {"method": method, "path_part": part.replace("OUT", short.rpartition("/")[2])}
    proxy.plan = outage("away", seconds=0.1, **at)
    compose(short, retry_s=20.0)
    assert proxy.plan.num_failed
    whole(short)
    at["path_part"] = part.replace("OUT", ever.rpartition("/")[2])
    proxy.plan = outage("away", **at)
    with monkeypatch.context() as patch:
        for module in (lease, makers):
            patch.setattr(module, "this_process", lambda: ended_process)
        with pytest.raises(StorageError, match=r"cannot be .*; tried .*store_retry_s") as ended:
            compose(ever, retry_s=0.1)
    assert not isinstance(ended.value, PlaceError)
    proxy.plan = FaultPlan()
    compose(ever, retry_s=20.0)
    whole(ever)
