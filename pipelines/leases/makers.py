"""Which runs make things in a store that several share: a file each, ``makers/RUN.json``.

A run writes the file before it claims anything there, changes it every few seconds, and deletes it
when all is done. A run that ends before that writes into it that it is over, and so does one that
finds it silent for too long; a run that was only stopped, and continues, writes it anew.

The file says one thing more: images of units that its run committed may not be written yet. So what
a run that is over left undone is done first, and then its file is deleted.
"""

import hashlib
import platform
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipelines.leases.heartbeat import Beat, Heartbeat, LeaseTimes, SilenceWatch
from pipelines.leases.lease import LeaseHeldError
from pipelines.process_identity import is_gone, this_process
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_json, read_json

MAKERS_FOLDER = "makers"

_TYPES = {
    "run_id": str, "host": str, "process": str, "began_at": str, "beat": int, "beat_at": str,
    "is_over": bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A run that makes things in a store; times are ISO 8601, UTC, and for people only.

    Attributes:
        run_id: The run.
        host: Where its driver runs.
        process: Its driver, as ``process_identity`` words it; empty if the file is damaged.
        began_at: When it came.
        beat: Counts up while it lives.
        beat_at: When it last did.
        is_over: It ended before all was done, or was silent for too long.
    """

    run_id: str
    host: str
    process: str
    began_at: str
    beat: int = 0
    beat_at: str = ""
    is_over: bool = False

    def described(self) -> str:
        """Return which run it is and since when it works, for a message."""
        return f"run {self.run_id}" + (
            f" on {self.host}, which began {self.began_at}" if self.host else ""
        )

    @property
    def sign(self) -> Beat:
        """What changes while it lives."""
        return self.beat, self.beat_at


@contextmanager
def present(storage: Storage, run_id: str, times: LeaseTimes) -> Generator[None]:
    """Show in a store, for as long as the block lasts, that the run makes things there."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    maker = Maker(run_id=run_id, host=platform.node(), process=this_process(), began_at=now)
    writing = threading.Lock()

    def beat() -> bool:
        nonlocal maker
        with writing:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            maker = replace(maker, beat=maker.beat + 1, beat_at=now)
            storage.put(_name(run_id), encode_json(asdict(maker)))
        return True

    beat()
    heartbeat = Heartbeat(beat, every_s=times.beat_s, name="maker")
    heartbeat.start()
    try:
        yield
    except BaseException:
        heartbeat.stop()
        # A unit may be committed and its images not written.
        with suppress(StorageError, OSError):
            _say_over(storage, maker)
        raise
    heartbeat.stop()
    # Where that fails, others wait for the silence instead.
    with suppress(StorageError, OSError):
        storage.delete(_name(run_id))


def live_maker(storage: Storage, run_id: str) -> Maker | None:
    """Return a run that may be at work in a store, None if it is certainly over."""
    maker = _read_maker(storage, run_id)
    return None if maker is None or _is_over(maker) else maker


def maker_ids(storage: Storage) -> set[str]:
    """Return the runs that are at work in a store, or left something undone when they ended."""
    names = storage.list(MAKERS_FOLDER, ".json")
    return {name.rpartition("/")[2].removesuffix(".json") for name in names}


def forget_maker(storage: Storage, run_id: str) -> None:
    """Say that nothing of a run that is over is left to be done."""
    storage.delete(_name(run_id))


def forget_makers_over(storage: Storage) -> None:
    """Forget every run that is certainly over, in a store where that leaves nothing to be done."""
    for run_id in maker_ids(storage):
        maker = _read_maker(storage, run_id)
        # One without a file has gone by itself, and may be back by now.
        if maker is not None and _is_over(maker):
            forget_maker(storage, run_id)


def live_makers(storage: Storage) -> list[Maker]:
    """Return all runs that may be at work in a store."""
    found = (live_maker(storage, run_id) for run_id in sorted(maker_ids(storage)))
    return [maker for maker in found if maker is not None]


class MakerWatch:
    """Looks at runs again and again, and takes for dead those that stay silent.

    Args:
        storage: Where they are at work.
        times: How long a silence is death.
    """

    def __init__(self, storage: Storage, times: LeaseTimes) -> None:
        self._storage = storage
        self._times = times
        self._watches: dict[str, SilenceWatch] = {}

    def look(self, run_id: str, *, waited_s: float) -> Maker | None:
        """Return the run, None if it is over or taken for dead now.

        Args:
            run_id: The run.
            waited_s: Since it was last looked at.
        """
        start = time.monotonic()
        maker = live_maker(self._storage, run_id)
        looked_s = time.monotonic() - start
        if maker is None:
            return None
        watch = self._watches.setdefault(run_id, SilenceWatch(self._times, maker.sign))
        if not watch.is_dead(maker.sign, waited_s=waited_s, looked_s=looked_s):
            return maker
        _say_over(self._storage, maker)
        return None


def refuse_while_made(
    storage: Storage,
    *,
    times: LeaseTimes,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once no run makes things in a store; waits if that is what it takes to see it.

    Raises:
        LeaseHeldError: A run does, and lives.
    """
    seen = {maker.run_id: maker for maker in live_makers(storage)}
    if seen:
        note(
            f"{storage.uri} is used by {next(iter(seen.values())).described()}; watching for up to "
            f"{times.silence_s:g} s whether it lives"
        )
    watch = MakerWatch(storage, times)
    waited_s = 0.0
    while seen:
        for run_id, before in list(seen.items()):
            maker = watch.look(run_id, waited_s=waited_s)
            if maker is None:
                del seen[run_id]
            elif maker.sign != before.sign:
                raise LeaseHeldError(
                    f"{storage.uri} is being written by {maker.described()} and lives; wait for "
                    "it or stop it"
                )
        if seen:
            waited_s = min(times.beat_s / 2, times.silence_s)
            sleep(waited_s)


def _read_maker(storage: Storage, run_id: str) -> Maker | None:
    """Return what a run's file says, None if it has none."""
    try:
        return read_json(storage, _name(run_id), lambda values: _maker(values, run_id))
    except FileNotFoundError:
        return None
    except DamagedFileError:
        try:
            content = storage.read(_name(run_id))
        except FileNotFoundError:
            return None
        # What it holds instead of a beat: if that changes, somebody writes it.
        sign = hashlib.sha256(content).hexdigest()
        return Maker(run_id=run_id, host="", process="", began_at="", beat_at=sign)


def _is_over(maker: Maker) -> bool:
    return maker.is_over or is_gone(maker.process)


def _say_over(storage: Storage, maker: Maker) -> None:
    storage.put(_name(maker.run_id), encode_json(asdict(replace(maker, is_over=True))))


def _name(run_id: str) -> str:
    return f"{MAKERS_FOLDER}/{run_id}.json"


def _maker(values: dict[str, Any], run_id: str) -> Maker:
    maker = Maker(**values)
    if maker.run_id != run_id or not all(isinstance(values[n], kind) for n, kind in _TYPES.items()):
        raise ValueError("not the file of this run")
    return maker
