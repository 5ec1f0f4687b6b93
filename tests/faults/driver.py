"""A driver as a process of its own: ``python driver.py SETTINGS`` runs the engine on fakes.

The last line it prints is what became of it, as JSON.
"""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from crash_world import Notes, World, publish
from engine_kit import FakeModelHost, FakeModelHostSource, Watcher, request
from faults.killing_storage import KillingStorage, Trap
from faults.kit import Settings, manifest, references
from faults.nodes import several_nodes, weighed_down
from faults.unsynced_storage import UnsyncedStorage
from inline_engine import run_inline
from output_checks import Fact

from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import LeaseHeldError, LeaseLostError
from pipelines.run import compose_rows
from pipelines.session.resources import Resources
from pipelines.session.shares import Shares
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.receipts import Receipt
from pipelines.upkeep.repair import repair_output


class FactFile:
    """Takes facts down at once, on another disk than the output's."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def note(self, value: Fact) -> None:
        with self._place.open("a") as file:
            file.write(json.dumps(value) + "\n")


class FactWatcher(Watcher):
    """Notes every unit whose receipt comes."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._notes = notes

    def stored(self, receipt: Receipt) -> None:
        super().stored(receipt)
        output = "references" if self.phases[-1][0] == "references" else ""
        self._notes.note(("unit", output, receipt.unit_id))


class BrokenStart(FakeModelHostSource):
    """An engine that cannot be loaded the first time."""

    def __init__(self, flag: Path, log: Path | None, seconds_a_row: float) -> None:
        super().__init__(log, seconds_a_row)
        self._flag = flag

    def __call__(self, shares: Shares | None = None) -> FakeModelHost:
        if not self._flag.exists():
            self._flag.touch()
            raise RuntimeError("the model cannot be loaded")
        return super().__call__(shares)


def main(path: Path) -> None:
    settings = Settings(**json.loads(path.read_text()))
    storage: Storage = open_storage(settings.out)
    if settings.point is not None:
        trap = Trap(settings.point, settings.victim, Path(settings.sprung))
        storage = KillingStorage(settings.out, trap, os.getpid())
    if not settings.syncs:
        storage = UnsyncedStorage(Path(settings.out))
    times = LeaseTimes(beat_s=settings.beat_s, silence_s=settings.silence_s)
    if settings.repairs:
        repair_output(storage, times=times, note=print)
        print(json.dumps({"outcome": "finished"}))
        return
    if settings.is_inline:
        run_inline(pytest.MonkeyPatch())
    changes: dict[str, Any] = {"references": references(settings), "references_storage": storage}
    if settings.broken_start:
        source = BrokenStart(Path(settings.sprung), Path(settings.log), settings.seconds_a_row)
        changes["load_model_host"] = source
    if settings.num_references:
        place = settings.references_at or f"{settings.out}/references"
        changes["references_storage"] = open_storage(place)
    notes = FactFile(Path(settings.facts)) if settings.facts else None
    asked = request(
        Path("/unused"),
        manifest(settings),
        log=Path(settings.log),
        storage=storage,
        seconds_a_row=settings.seconds_a_row,
        resources=Resources(
            rows_per_unit=settings.rows_per_unit,
            actors=settings.actors,
            cpus_per_actor=settings.cpus_per_actor,
        ),
        lease_times=times,
        **changes,
    )
    own_cluster = settings.num_nodes or settings.spill_folder
    cluster = several_nodes(settings) if own_cluster else nullcontext()
    try:
        with cluster as address, weighed_down(address, settings):
            watcher = Watcher() if notes is None else FactWatcher(notes)
            account = compose_rows(asked, watcher, address=address)
    except (LeaseHeldError, LeaseLostError) as error:
        print(json.dumps({"outcome": type(error).__name__, "said": str(error)}))
        sys.exit(2)
    if settings.publishes:
        publish(manifest(settings))(World(Path(settings.out).parent, notes))
    print(json.dumps({"outcome": "finished", **asdict(account)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
