"""Units of a store that several runs share: each made by one of them, while the others wait."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from clora_core.recipe.row import Row
from manifests.places.place_names import joined
from pipelines.leases.claims import Claimant
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.shared_work import share_work
from pipelines.planning.plan import Plan
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import ROWS_FOLDER, read_unit, rows_name, unit_id_of
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.receipts import Receipt, RowReceipt

_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True)
class UnitClaims:
    """Claims units for a run; called where they are made, when they are begun."""

    claimant: Claimant

    def claim(self, message: UnitMessage) -> UnitMessage:
        """Return the unit, and in its facts whether there is anything to do."""
        storage, name = self.claimant.storage, rows_name(message.unit_id)
        standing = self.claimant.claim(message.unit_id, lambda: storage.exists(name))
        return message.with_facts(message.rows, held_by=standing.held_by, is_done=standing.is_done)


def make_shared_units(
    plan: Plan,
    make: Callable[[Plan], Generator[Receipt]],
    storage: Storage,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
) -> Generator[Receipt]:
    """Yield a receipt of every unit of ``plan`` once it is committed, here or by another run.

    Args:
        plan: The units.
        make: Makes those of a plan that no other run holds, and yields receipts of all.
        storage: Where they are committed.
        times: How long a silence of another run is death.
        note: Gets a sentence of what is waited for.
    """
    return share_work(
        plan.unit_ids,
        lambda unit_ids: make(plan.only(unit_ids)),
        storage,
        find_done=lambda: [unit_id_of(name) for name in storage.list(ROWS_FOLDER, ".parquet")],
        receipts_of=lambda unit_ids: _receipts_of_others(storage, plan.only(unit_ids)),
        what="unit(s) of references",
        times=times,
        note=note,
    )


def set_aside_meanwhile(storage: Storage, name: str) -> str:
    """Return a sentence on a unit that a repair has abandoned since this run planned it."""
    return (
        f"{joined(storage.uri, name)} was set aside by `clora verify --repair` while this run "
        "began; run the same command again"
    )


def _receipts_of_others(storage: Storage, plan: Plan) -> Iterator[Receipt]:
    """Yield receipts of units that other runs committed."""
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        yield from pool.map(partial(_receipt, storage), plan.unit_ids, plan.members_by_unit())


def _receipt(storage: Storage, unit_id: str, rows: Sequence[Row]) -> Receipt:
    name = rows_name(unit_id)
    try:
        keys, footer = read_unit(storage, name)
    except FileNotFoundError:
        raise StorageError(set_aside_meanwhile(storage, name)) from None
    if footer.is_abandoned:
        raise StorageError(set_aside_meanwhile(storage, name))
    stages = {error["key"]: error["stage"] for error in footer.errors}
    made = frozenset(keys)
    return Receipt(
        unit_id=unit_id,
        committed=False,
        rows=tuple(
            RowReceipt(
                method=row.method,
                made=row.key in made,
                stage=stages.get(row.key),
                seconds=0.0,
                unet_evaluations=0,
                dino_min=None,
            )
            for row in rows
        ),
        facts=UnitFacts(is_done=True),
    )
