"""Who makes what in a store that several runs share: one claim at a time on each piece of work.

A work is named by what it makes, so that all runs know it by the same name. A run claims it by
creating the next ``claims/NAME/N.json``, which only one can. The claim holds until the work is done
or its run is over, see ``makers``; then the next one to come creates the next number. A claim is
never changed, so what was read of it stays true.

Claims save work and nothing else: a run that was stopped, and continues, may do what another does
too. That nothing is done twice for good is up to the commit, which only one can make.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import Maker, MakerWatch, live_maker
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_json, read_json

CLAIMS_FOLDER = "claims"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a piece of work stands for a run that wants it done.

    Attributes:
        is_done: There is nothing left to do.
        held_by: The run that does it; empty if that is the one who asked.
    """

    is_done: bool = False
    held_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """A run that claims works in a store; can be sent to any machine.

    Attributes:
        storage: The store.
        run_id: The run; ``makers.present`` must hold for it.
    """

    storage: Storage
    run_id: str

    def claim(self, work: str, is_done: Callable[[], bool]) -> Standing:
        """Claim a work unless it is done or another live run's; return how it stands."""
        if is_done():
            return Standing(is_done=True)
        while True:
            names = self.storage.list(f"{CLAIMS_FOLDER}/{work}", ".json")
            holder = _holder(self.storage, names[-1]) if names else None
            if holder == self.run_id:
                return Standing()
            if holder is not None and live_maker(self.storage, holder) is not None:
                return Standing(held_by=holder)
            number = 1 + (_number(names[-1]) if names else 0)
            name = f"{CLAIMS_FOLDER}/{work}/{number:09}.json"
            if self.storage.put_if_absent(name, encode_json({"run_id": self.run_id})):
                # The one before may have done it, and gone, since it was asked for first.
                return Standing(is_done=bool(names) and is_done())


def wait_until_free(
    storage: Storage,
    held: Mapping[str, str],
    find_done: Callable[[], Collection[str]],
    *,
    what: str,
    times: LeaseTimes,
    note: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Collection[str]:
    """Wait for works of other runs; return those that are done, once any is free or all are done.

    Args:
        storage: The store.
        held: The run that does it, by work.
        find_done: Returns the works of the store that are done.
        what: What works are called in a sentence.
        times: How long a silence of a run is death.
        note: Gets a sentence if there is something to wait for, and of each run that is over.
        sleep: Lets time pass; tests give their own.
    """
    watch = MakerWatch(storage, times)
    known: dict[str, Maker] = {}
    waited_s = 0.0
    while True:
        # First who lives and then what is done: a run that is over does nothing in between.
        runs = {run_id: watch.look(run_id, waited_s=waited_s) for run_id in set(held.values())}
        done = held.keys() & find_done()
        freed = {run_id for work, run_id in held.items() if work not in done and not runs[run_id]}
        if freed or len(done) == len(held):
            for run_id in sorted(freed & known.keys()):
                note(f"{known[run_id].described()} is over; what it left undone is made here")
            return done
        waited_for = Counter(run_id for work, run_id in held.items() if work not in done)
        for run_id, num_works in waited_for.items():
            maker = runs[run_id]
            if maker is not None and run_id not in known:
                known[run_id] = maker
                note(f"waiting for {num_works:,} {what} made by {maker.described()}")
        waited_s = min(times.beat_s / 2, times.silence_s)
        sleep(waited_s)


def _holder(storage: Storage, name: str) -> str | None:
    """Return the run of a claim; None for one that is damaged or gone, which holds nothing."""
    try:
        return read_json(storage, name, lambda values: str(values["run_id"]))
    except (DamagedFileError, FileNotFoundError):
        return None


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".json"))
