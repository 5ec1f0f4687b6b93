"""Repair of an output: what can be restored is, what cannot is set aside, nothing is deleted.

An image file is restored from its row. A unit that is damaged is moved into ``damaged/``, and an
abandoned unit takes its name, so that no worker of an earlier run commits it: its rows are planned
again by the next run. Small files are moved as well, and what is a copy of something else is
written again. All of it happens under the output's lease, as a run does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from manifests.places.place_names import joined, parent
from manifests.tables.arrow_functions import arrow
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import HeldLease, acquire
from pipelines.leases.lease_record import LEASES_FOLDER, all_leases
from pipelines.leases.makers import maker_ids, refuse_while_made
from pipelines.leases.seal import plans_of_earlier_runs, seal_units
from pipelines.leases.shared_images import restore_shared_images
from pipelines.ledger.error_tables import restore_errors
from pipelines.ledger.index_files import INDEX_FOLDER
from pipelines.ledger.ledger import survey
from pipelines.ledger.run_record import new_run_id
from pipelines.ledger.update_index import update_index
from pipelines.outputs.card_stamp import writer_stamp
from pipelines.outputs.data_card import restamp
from pipelines.outputs.editions import point_at_newest
from pipelines.planning.plan_files import PLANS_FOLDER
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_image import restore_images_of
from pipelines.units.committed_unit import ERRORS_FOLDER, unit_id_of
from pipelines.units.output_files import DAMAGED_FOLDER, DamagedFileError
from pipelines.upkeep.verify import (
    UnitCheck,
    damaged_files,
    damaged_records,
    nested_outputs,
    verify_units,
)

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done.

    Attributes:
        restored: Files that were written again, with their output.
        set_aside: (damage, where the file is now) of each that was moved.
        num_units: Units among those; the next run makes their rows again.
    """

    restored: tuple[str, ...]
    set_aside: tuple[tuple[DamagedFileError, str], ...]
    num_units: int


def repair_output(storage: Storage, *, times: LeaseTimes, note: Note) -> Repair:
    """Repair an output and the references in it.

    Args:
        storage: The output.
        times: How long a run that may be dead is watched.
        note: Gets sentences that the user should see meanwhile.

    Raises:
        LeaseHeldError: A run works on the output, or makes references there.
    """
    run_id = f"{new_run_id(datetime.now(UTC))}-repair"
    with acquire(_owner(storage), run_id, times=times, note=note) as lease:
        steps = _Steps(run_id)
        outputs = [
            storage,
            *(open_storage(joined(storage.uri, n)) for n in nested_outputs(storage)),
        ]
        for output in outputs:
            refuse_while_made(output, times=times, note=note)
            for check in verify_units(output):
                steps.repair_unit(output, check)
            files = list(damaged_files(output))
            if any(damage.name.startswith((LEASES_FOLDER, PLANS_FOLDER)) for damage in files):
                _shut_out_all(storage, lease, run_id, note)
            for damage in files:
                steps.set_aside(output, damage)
            # They name parts that were set aside just now.
            for damage in list(damaged_records(output)):
                steps.set_aside(output, damage)
            if maker_ids(output):
                restore_shared_images(output, times=times, note=note)
            ledger = survey(output)
            if restore_errors(output, ledger):
                steps.restored.append(joined(output.uri, ERRORS_FOLDER))
            if any(damage.name.startswith(INDEX_FOLDER) for damage in files):
                update_index(ledger)
            if files:
                point_at_newest(output)
        if steps.num_units:
            # Rows were set aside; the next run makes them again and writes the card.
            restamp(_owner(storage), writer_stamp(run_id))
        lease.finished()
        return Repair(
            restored=tuple(steps.restored),
            set_aside=tuple(steps.moved),
            num_units=steps.num_units,
        )


class _Steps:
    """The steps of one repair, and what they came to."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self.restored: list[str] = []
        self.moved: list[tuple[DamagedFileError, str]] = []
        self.num_units = 0

    def repair_unit(self, storage: Storage, check: UnitCheck) -> None:
        """Restore a unit's images, or set it aside."""
        if check.damage is not None:
            self.set_aside(storage, check.damage)
            seal_units(storage, [unit_id_of(check.name)], run_id=self._run_id)
            self.num_units += 1
            return
        names = restore_images_of(storage, check.name, set(check.lost_images))
        self.restored += [joined(storage.uri, name) for name in names]

    def set_aside(self, storage: Storage, damage: DamagedFileError) -> None:
        """Move a damaged file where nothing reads it."""
        target = f"{DAMAGED_FOLDER}/{self._run_id}/{damage.name}"
        try:
            storage.move(damage.name, target)
        except FileNotFoundError:
            # A copy that is missing, and is written again.
            self.restored.append(joined(storage.uri, damage.name))
        else:
            self.moved.append((damage, target))


def _owner(storage: Storage) -> Storage:
    """Return the output whose lease guards ``storage``: references in an output have none."""
    output_uri = parent(parent(storage.uri))
    if joined(output_uri, "references") == parent(storage.uri):
        output = open_storage(output_uri)
        if output.list(LEASES_FOLDER, ".json"):
            return output
    return storage


def _shut_out_all(storage: Storage, lease: HeldLease, run_id: str, note: Note) -> None:
    """Keep every earlier run from committing more; after that its lease and plan may go.

    A damaged lease does not say whose it is, so no unit of any plan can be left open.
    """
    earlier = plans_of_earlier_runs(storage, all_leases(storage), note=note)
    planned: set[str] = set()
    for table in earlier.units.tables():
        planned.update(table["unit_id"].unique().to_pylist())
    ids = pa.array(sorted(planned), pa.string())
    is_open = arrow.invert(survey(storage).is_committed(ids))
    seal_units(storage, ids.filter(is_open).to_pylist(), run_id=run_id)
    lease.sealed()
