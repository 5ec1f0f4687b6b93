"""Units of a store that several runs share: each made by one of them, while the others wait for it.

A pass makes what nobody else is making. What others held is then waited for, and made here after
all if its run is over before it is done.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from pipelines.claims import Claimant, wait_until_free
from pipelines.committed_image import damaged_images, restore_lost_images
from pipelines.committed_unit import ROWS_FOLDER, read_unit, rows_name, unit_id_of
from pipelines.heartbeat import LeaseTimes
from pipelines.ledger import read_ledger
from pipelines.makers import MakerWatch, forget_maker, maker_ids
from pipelines.plan import Plan
from pipelines.receipts import Receipt, RowReceipt
from pipelines.storage import Storage
from pipelines.unit_message import UnitFacts, UnitMessage

__all__ = ["UnitClaims", "make_shared_units", "restore_shared_images"]


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
    while plan.num_units:
        held: dict[str, str] = {}
        with closing(make(plan)) as receipts:
            for receipt in receipts:
                if receipt.facts.held_by:
                    held[receipt.unit_id] = receipt.facts.held_by
                else:
                    yield receipt
        if not held:
            return
        done = wait_until_free(
            storage,
            held,
            lambda: [unit_id_of(name) for name in storage.list(ROWS_FOLDER, ".parquet")],
            what="unit(s) of references",
            times=times,
            note=note,
        )
        for unit_id in sorted(done):
            yield _receipt_of_another(storage, plan, unit_id)
        plan = plan.only(held.keys() - done)


def restore_shared_images(
    storage: Storage,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once every committed row has its image file; write those that runs left unwritten.

    A live run writes the images of its units itself, so these are waited for.

    Args:
        storage: The store.
        times: How long a silence of another run is death.
        note: Gets a sentence of what was restored.
        sleep: Lets time pass; tests give their own.
    """
    watch = MakerWatch(storage, times)
    waited_s = 0.0
    while True:
        # First who lives and then what is missing: a run that is over writes nothing in between.
        runs = maker_ids(storage)
        live = {run_id for run_id in runs if watch.look(run_id, waited_s=waited_s)}
        lost = damaged_images(storage, read_ledger(storage))
        num_left = restore_lost_images(storage, lost, note=note, live_runs=live)
        for run_id in runs - live:
            forget_maker(storage, run_id)
        if not num_left:
            return
        waited_s = min(times.beat_s / 2, times.silence_s)
        sleep(waited_s)


def _receipt_of_another(storage: Storage, plan: Plan, unit_id: str) -> Receipt:
    keys, footer = read_unit(storage, rows_name(unit_id))
    made = set(keys)
    stages = {error["key"]: error["stage"] for error in footer.errors}
    own = plan.only({unit_id})
    rows = [own.rows[place] for place in own.order.tolist()]
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
