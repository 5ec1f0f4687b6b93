"""Image files of a store that several runs share, where units are committed before their images.

The run that committed a unit writes its images. If it ended in between they are written here, from
the unit; its file in ``makers`` says that this may be so, and is deleted afterwards.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import MakerWatch, forget_maker, live_maker, maker_ids
from pipelines.ledger.ledger import Ledger, read_ledger
from pipelines.ledger.lost_images import damaged_images
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import restore_images_of, say_restored
from pipelines.units.committed_unit import read_unit, read_units


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """A unit that has lost images: its file, the run that committed it, and their keys."""

    name: str
    run_id: str
    keys: frozenset[str]


def restore_shared_images(
    storage: Storage,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Ledger:
    """Write the images that runs left unwritten, and return the ledger of the store.

    The images of a run that lives are its own. Whether it does is seen by its next beat, or by a
    silence.

    Args:
        storage: The store.
        times: Of runs there.
        note: Gets a sentence of what was restored.
        sleep: Lets time pass; tests give their own.
    """
    before = maker_ids(storage)
    ledger = read_ledger(storage)
    lost = damaged_images(storage, ledger)
    if lost:
        read = partial(_unit, storage, set(lost))
        units = [unit for unit in read_units(storage, read) if unit.keys]
        makers = maker_ids(storage)
        # Looked at again: a run may have written its images, and gone, before it was asked for.
        lost = damaged_images(storage, ledger)
        alive = _alive(storage, makers & {unit.run_id for unit in units}, times, sleep)
        restored = [
            name
            for unit in units
            if unit.run_id not in alive
            for name in restore_images_of(storage, unit.name, unit.keys.intersection(lost))
        ]
        say_restored(storage, restored, note)
    for run_id in before:
        if live_maker(storage, run_id) is None:
            forget_maker(storage, run_id)
    return ledger


def _unit(storage: Storage, lost: Collection[str], name: str) -> _Unit:
    keys, footer = read_unit(storage, name)
    return _Unit(name=name, run_id=footer.run_id, keys=frozenset(keys).intersection(lost))


def _alive(
    storage: Storage, runs: Collection[str], times: LeaseTimes, sleep: Callable[[float], None]
) -> set[str]:
    """Return which runs are seen to beat; the others are over, or silent for long enough."""
    watch = MakerWatch(storage, times)
    looks = {run_id: watch.look(run_id, waited_s=0.0) for run_id in runs}
    open_ = {run_id: maker.sign for run_id, maker in looks.items() if maker is not None}
    alive: set[str] = set()
    while open_:
        waited_s = min(times.beat_s / 2, times.silence_s)
        sleep(waited_s)
        for run_id, sign in list(open_.items()):
            maker = watch.look(run_id, waited_s=waited_s)
            if maker is not None and maker.sign != sign:
                alive.add(run_id)
            if maker is None or run_id in alive:
                del open_[run_id]
    return alive
