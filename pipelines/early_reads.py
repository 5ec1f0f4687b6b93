"""Units of a run, read by its driver while others are made, so that the end of a run is short.

A driver mostly waits. So it reads each unit soon after it is committed, for the ledger and for what
a run leaves for people. The end lists the units, and reads those that were not read, or all if a
unit is another file by then.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from manifests.places.locations import StoreAwayError
from manifests.tables.spool import Spool, SpoolError
from pipelines.ledger.ledger import Ledger, UnitsChangedError, survey
from pipelines.ledger.unit_rows import UNIT, file_identity, read_unit_rows
from pipelines.outputs.listed_rows import ListedRows
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import rows_name

_AT_ONCE = 64


class EarlyReads:
    """A thread that reads units, for as long as the block lasts.

    Args:
        storage: The output.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listed = ListedRows(storage)
        self._spool = Spool(UNIT, what="the committed rows")
        self._committed = queue.SimpleQueue[str]()
        self._is_stopped = False
        self._is_usable = self._has_versions = True
        self._thread = threading.Thread(target=self._work, name="early-reads", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._stop()

    def committed(self, unit_id: str) -> None:
        """Note that this run committed a unit; each is noted once."""
        self._committed.put(unit_id)

    def survey(self) -> tuple[Ledger, ListedRows]:
        """Return the ledger as ``ledger.survey`` does, and the rows that were read with it."""
        self._stop()
        if self._is_usable:
            with suppress(UnitsChangedError):
                return survey(self._storage, self._listed, self._spool.tables()), self._listed
        listed = ListedRows(self._storage)
        return survey(self._storage, listed), listed

    def _stop(self) -> None:
        self._is_stopped = True
        self._committed.put("")  # wakes the thread
        self._thread.join()

    def _work(self) -> None:
        try:
            while self._is_usable and (unit_ids := self._next_units()):
                # If this breaks off, a unit may be among the listed rows and not in the spool.
                self._is_usable = False
                names = self._named(unit_ids)
                # Damage is left for the end to find.
                for table in read_unit_rows(
                    self._storage, names, skip=lambda _damage: None, beside=self._listed
                ):
                    self._spool.add(table)
                self._is_usable = self._has_versions
        except (StorageError, StoreAwayError, SpoolError, OSError):
            return  # if it matters, the end meets it

    def _next_units(self) -> list[str]:
        """Return units that are committed, waiting for the first; none if there is an end."""
        unit_ids = [self._committed.get()]
        with suppress(queue.Empty):
            while len(unit_ids) < _AT_ONCE:
                unit_ids.append(self._committed.get_nowait())
        return [] if self._is_stopped else unit_ids

    def _named(self, unit_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the files of units, and their identities."""
        for name in map(rows_name, unit_ids):
            with suppress(FileNotFoundError):
                num_bytes, version = self._storage.version(name)
                # Without one nothing says at the end that it is the same file.
                self._has_versions &= bool(version)
                yield name, file_identity(num_bytes, version)
