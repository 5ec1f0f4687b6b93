"""The lease on an output: one live run at a time, and a run that was taken for dead finds out.

Each run claims the next epoch by creating ``leases/epoch-N.json``, which only one can (the same
atomic creation that commits use, so it works wherever they do). It then rewrites that file every
few seconds. Who finds a live epoch watches it: if the file changes its run lives, and the newcomer
is refused; if it stays as it is for the time of silence, the run is taken for dead and the next
epoch is claimed. No clocks of two machines are compared. A run whose process was on this machine
and is gone needs no watching.

A run that was only stopped, and goes on, finds the next epoch there: its workers ask before each
unit and its driver with each beat. That saves work. That it cannot spoil anything, even between the
question and the commit, is ``seal``'s part.
"""

import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType

from clora_core.recipe.errors import CloraError
from pipelines.leases.heartbeat import Beat, Heartbeat, LeaseTimes, SilenceWatch
from pipelines.leases.lease_record import (
    LeaseRecord,
    LeaseState,
    encode_lease,
    latest_lease,
    lease_name,
    read_lease,
)
from pipelines.process_identity import is_gone, this_process
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage


class LeaseHeldError(CloraError):
    """Another run works on the output; the message says which, where and since when."""

    exit_code = 1


class LeaseLostError(CloraError):
    """A later run has taken the output over; the message says which."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What a worker asks before it works for a run: whether the run still holds the output."""

    storage: Storage
    epoch: int

    def check(self) -> None:
        """Raise LeaseLostError if a later run has taken over."""
        if self.storage.exists(lease_name(self.epoch + 1)):
            later = read_lease(self.storage, self.epoch + 1)
            raise LeaseLostError(
                f"{self.storage.uri} was taken over by {later.described()}; this run was silent "
                "for too long. What it committed stays, and the other run makes the rest"
            )


class HeldLease:
    """A lease while its run lives; a thread shows that it does. Use in a ``with`` block."""

    def __init__(
        self,
        storage: Storage,
        record: LeaseRecord,
        times: LeaseTimes,
        predecessor: LeaseRecord | None,
    ) -> None:
        self.predecessor = predecessor
        self.fence = Fence(storage=storage, epoch=record.epoch)
        self._storage = storage
        self._record = record
        self._writing = threading.Lock()
        self._heartbeat = Heartbeat(self._beat, every_s=times.beat_s, name="lease")
        self._end_state: LeaseState = "stopped"

    def __enter__(self) -> "HeldLease":
        """Begin to beat."""
        self._heartbeat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop beating, and say that the run is over."""
        self._heartbeat.stop()
        try:
            self._write(state=self._end_state)
        except (StorageError, OSError):
            # The next run waits for the silence instead.
            return

    def finished(self) -> None:
        """Say, for the end of the block, that every unit of the plan is committed."""
        self._end_state = "finished"

    def sealed(self) -> None:
        """Tell later runs that they need not look behind this one's plan."""
        self._write(is_sealed=True)

    def _beat(self) -> bool:
        if self._storage.exists(lease_name(self._record.epoch + 1)):
            return False
        self._write()
        return True

    def _write(self, **changes: bool | LeaseState) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing:
            beat = self._record.beat + 1
            self._record = replace(self._record, beat=beat, beat_at=now, **changes)
            self._storage.put(lease_name(self._record.epoch), encode_lease(self._record))


def acquire(
    storage: Storage,
    run_id: str,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> HeldLease:
    """Claim the output for a run; waits if that is what it takes to see whether another lives.

    Args:
        storage: The output.
        run_id: The run.
        times: Of this run and, because nothing else is known, of the one before.
        note: Told once if there is something to wait for.
        sleep: Lets time pass; tests give their own.

    Raises:
        LeaseHeldError: Another run holds it and lives.
    """
    while True:
        holder = latest_lease(storage)
        if holder is not None and holder.state == "live" and not is_gone(holder.process):
            note(
                f"{storage.uri} belongs to {holder.described()}; watching for up to "
                f"{times.silence_s:g} s whether it lives"
            )
            _watch(storage, holder, times, sleep)
            holder = latest_lease(storage)
        epoch = 1 if holder is None else holder.epoch + 1
        record = LeaseRecord(
            epoch=epoch,
            run_id=run_id,
            host=platform.node(),
            process=this_process(),
            began_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if storage.put_if_absent(lease_name(epoch), encode_lease(record)):
            return HeldLease(storage, record, times, holder)


def _watch(
    storage: Storage, holder: LeaseRecord, times: LeaseTimes, sleep: Callable[[float], None]
) -> None:
    """Return when the holder has ended or was silent for long enough."""
    silence = SilenceWatch(times, _sign(holder))
    waited_s = 0.0
    while True:
        start = time.monotonic()
        seen = latest_lease(storage)
        looked_s = time.monotonic() - start
        if seen is None or (seen.epoch == holder.epoch and seen.state != "live"):
            return
        if seen.epoch != holder.epoch or _sign(seen) != _sign(holder):
            raise LeaseHeldError(
                f"{storage.uri} is being written by {seen.described()} and lives; wait for it, "
                "stop it, or name another output"
            )
        if silence.is_dead(_sign(seen), waited_s=waited_s, looked_s=looked_s):
            return
        waited_s = min(times.beat_s / 2, times.silence_s)
        sleep(waited_s)


def _sign(record: LeaseRecord) -> Beat:
    """Return what changes while the run of a lease lives."""
    return record.beat, record.beat_at
