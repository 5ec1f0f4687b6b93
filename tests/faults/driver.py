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

from engine_kit import FakeEngine, FakeEngineSource, Watcher, request
from faults.killing_storage import KillingStorage, Trap
from faults.kit import Settings, manifest
from faults.nodes import several_nodes, weighed_down

from pipelines.engine import LoadEngine
from pipelines.lease import LeaseHeldError, LeaseLostError, LeaseTimes
from pipelines.request import Resources
from pipelines.run import compose_rows
from pipelines.storage import Storage, open_storage


class BrokenStart(FakeEngineSource):
    """An engine that cannot be loaded the first time."""

    def __init__(self, flag: Path, log: Path | None, seconds_a_row: float) -> None:
        super().__init__(log, seconds_a_row)
        self._flag = flag

    def __call__(self) -> FakeEngine:
        if not self._flag.exists():
            self._flag.touch()
            raise RuntimeError("the model cannot be loaded")
        return super().__call__()


def main(path: Path) -> None:
    settings = Settings(**json.loads(path.read_text()))
    storage: Storage = open_storage(settings.out)
    if settings.point is not None:
        trap = Trap(settings.point, settings.victim, Path(settings.sprung))
        storage = KillingStorage(settings.out, trap, os.getpid())
    changes: dict[str, Any] = {}
    if settings.broken_start:
        source = BrokenStart(Path(settings.sprung), Path(settings.log), settings.seconds_a_row)
        changes["make_engine"] = lambda _shares: _as_loader(source)
    asked = request(
        Path("/unused"),
        manifest(settings),
        log=Path(settings.log),
        storage=storage,
        references_storage=storage,
        references={},
        seconds_a_row=settings.seconds_a_row,
        resources=Resources(
            rows_per_unit=settings.rows_per_unit,
            actors=settings.actors,
            cpus_per_actor=settings.cpus_per_actor,
        ),
        lease_times=LeaseTimes(beat_s=settings.beat_s, silence_s=settings.silence_s),
        **changes,
    )
    own_cluster = settings.num_nodes or settings.spill_folder
    cluster = several_nodes(settings) if own_cluster else nullcontext()
    try:
        with cluster as address, weighed_down(address, settings):
            account = compose_rows(asked, Watcher(), address=address)
    except (LeaseHeldError, LeaseLostError) as error:
        print(json.dumps({"outcome": type(error).__name__, "said": str(error)}))
        sys.exit(2)
    print(json.dumps({"outcome": "finished", **asdict(account)}))


def _as_loader(source: BrokenStart) -> LoadEngine:
    return source


if __name__ == "__main__":
    main(Path(sys.argv[1]))
