"""What nothing refers to any more: images without a row, writes that broke off, marks left behind.

A kill leaves them; a run that makes the same rows later puts them to use or writes over them, so
they cost space and nothing else. Only files that are named as this engine names them are looked at.

Removing takes the output's lease, as a run does, so no live run loses anything. A worker of a dead
run that is only stopped may have written images and not committed them; the units that it could
still commit are abandoned first, see ``seal``.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from manifests.tables.text_numbers import deal, dealing_spool
from pipelines.fusing.fused_files import fused_keys
from pipelines.leases.claims import CLAIMS_FOLDER
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import HeldLease, acquire
from pipelines.leases.lease_record import earlier_leases
from pipelines.leases.makers import refuse_while_made
from pipelines.leases.seal import KEYS, find_rivals, plans_of_earlier_runs, seal_units
from pipelines.ledger.ledger import Ledger, read_ledger
from pipelines.ledger.run_record import new_run_id
from pipelines.ledger.tries import ATTEMPTS_FOLDER
from pipelines.storage.durable_files import UNFINISHED
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import image_name
from pipelines.units.output_files import DAMAGED_FOLDER

_IMAGE = re.compile(r"images/[0-9a-f]{2}/([0-9a-f]{64})\.png")
_ELSEWHERE = ("references/", f"{DAMAGED_FOLDER}/")
"""References are outputs of their own; what was set aside is never removed."""

_KEY = pa.schema([("key", pa.string())])
_NAMES_AT_ONCE = 8192

_MARKS = (f"{ATTEMPTS_FOLDER}/", f"{CLAIMS_FOLDER}/")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Names of files that nothing refers to.

    Attributes:
        images: Without a committed row.
        unfinished: Hidden writes that broke off.
        marks: Tries and claims of units and fused adapters that are committed.
        indexes: Copies of what units said that are not there, or not as they were.
    """

    images: tuple[str, ...]
    unfinished: tuple[str, ...]
    marks: tuple[str, ...]
    indexes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.images, *self.unfinished, *self.marks, *self.indexes)


def find_garbage(storage: Storage) -> Garbage:
    """Return what nothing refers to; of a live run that includes what it has not committed yet."""
    return _find(storage, _Names(storage), read_ledger(storage))


def remove_garbage(storage: Storage, *, times: LeaseTimes, note: Callable[[str], None]) -> Garbage:
    """Remove what nothing refers to, and return it.

    Raises:
        LeaseHeldError: A run works on the output, or makes references there.
    """
    run_id = f"{new_run_id(datetime.now(UTC))}-gc"
    with acquire(storage, run_id, times=times, note=note) as lease:
        refuse_while_made(storage, times=times, note=note)
        garbage = _shut_out(storage, lease, run_id, note)
        for name in garbage.names:
            storage.delete(name)
        return garbage


def _shut_out(
    storage: Storage, lease: HeldLease, run_id: str, note: Callable[[str], None]
) -> Garbage:
    """Return the garbage once no worker of an earlier run can commit any of it."""
    leases = earlier_leases(storage, lease.fence.epoch)
    earlier = plans_of_earlier_runs(storage, leases, note=note)
    while True:
        # In this order: what is committed in between must not be taken for garbage.
        names = _Names(storage)
        ledger = read_ledger(storage)
        garbage = _find(storage, names, ledger)
        rivals = find_rivals(
            earlier,
            settled=[ledger.units],
            own_keys=lambda garbage=garbage: [_keys(garbage.images)],
        )
        if seal_units(storage, rivals.unit_ids, run_id=run_id):
            return garbage


class _Names:
    """What an output holds that may be garbage; it is listed here.

    Args:
        storage: The output.
    """

    def __init__(self, storage: Storage) -> None:
        self.images = dealing_spool(_KEY, "the names of images")
        self.unfinished: list[str] = []
        self.marks: list[str] = []
        keys: list[str] = []
        for name in storage.walk(""):
            if name.startswith(_ELSEWHERE):
                continue
            if name.rpartition("/")[2].startswith(UNFINISHED):
                self.unfinished.append(name)
            elif image := _IMAGE.fullmatch(name):
                keys.append(image[1])
                if len(keys) == _NAMES_AT_ONCE:
                    deal(self.images, pa.table({"key": keys}, schema=_KEY))
                    keys = []
            elif name.startswith(_MARKS):
                self.marks.append(name)
        deal(self.images, pa.table({"key": keys}, schema=_KEY))


def _find(storage: Storage, names: _Names, ledger: Ledger) -> Garbage:
    ids = pa.array([name.split("/")[1] for name in names.marks], pa.string())
    fused = fused_keys(storage)
    marks = [
        name
        for name, unit_id, is_done in zip(
            names.marks, ids.to_pylist(), ledger.is_committed(ids).to_pylist(), strict=True
        )
        if is_done or unit_id in fused
    ]
    return Garbage(
        images=tuple(sorted(map(image_name, _unmade(names.images, ledger)))),
        unfinished=tuple(sorted(names.unfinished)),
        marks=tuple(sorted(marks)),
        indexes=ledger.unused_indexes,
    )


def _unmade(images: Spool, ledger: Ledger) -> Iterator[str]:
    """Yield the keys of images without a row."""
    if not images.num_rows:
        return
    made = dealing_spool(_KEY, "the committed rows")
    for table in ledger.made_tables():
        deal(made, table.select(["key"]))
    for partition in images.filled():
        keys = images.partition(partition)["key"]
        is_made = arrow.is_in(keys, value_set=made.partition(partition)["key"])
        yield from keys.filter(arrow.invert(is_made)).to_pylist()


def _keys(images: tuple[str, ...]) -> pa.Table:
    keys = [name.rpartition("/")[2].removesuffix(".png") for name in images]
    return pa.table({"key": keys}, schema=KEYS)
