"""Marks that a unit was begun, left in the output so that they outlive the process that began it.

An exception is told by whoever meets it; a process that is killed by its row (no memory, a crash in
native code, ``os._exit``) tells nothing, and Ray gives the unit to the next process without end. So
an actor leaves a mark before it begins, and takes all marks of the unit away once it is committed.
Marks that are there at the beginning are of tries that ended in a death.

Two deaths may be an accident: the machine was taken away, the driver was killed. From the third try
on the unit's rows are made one by one, each under a mark of its own, and a row that has died alone
is not made again in this attempt: it failed, with that as its reason. A process that is asked to
end takes its marks back, see ``leaving``.

Processes die with their driver, so a death counts against a row only if the run went on after it:
every mark of the run that asks is of such a death, and of an earlier run every one but the last.
So a row is never blamed for a run that was killed, however often. The price is that a row which
takes the driver along, say because the machine runs out of memory, is not found.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.storage.storage import Storage

ATTEMPTS_FOLDER = "attempts"
_LOST_DEVICES = f"{ATTEMPTS_FOLDER}/lost-devices"
TRIES_TOGETHER = 2
"""Deaths of a whole unit that are taken for accidents."""


@dataclass(frozen=True, kw_only=True)
class UnitTries:
    """What the marks say of a unit that is about to be tried.

    Attributes:
        number: This try, counting from 1.
        deaths_alone: By key, how often a row's process died while making it alone and the run
            went on.
    """

    number: int
    deaths_alone: Mapping[str, int]

    @property
    def one_by_one(self) -> bool:
        """Whether rows are to be made alone, to find the one that kills."""
        return self.number > TRIES_TOGETHER


@dataclass(frozen=True, kw_only=True)
class TryMarks:
    """The marks of one run in one output.

    Attributes:
        storage: The output.
        run_id: The run that asks.
        open: Marks of what this process is at.
    """

    storage: Storage
    run_id: str
    open: set[str] = field(default_factory=set[str], compare=False, repr=False)

    def begin(self, unit_id: str) -> UnitTries:
        """Leave the mark of a try, and return what earlier ones left."""
        tries = self.look(unit_id)
        self.mark(unit_id)
        return tries

    def look(self, unit_id: str) -> UnitTries:
        """Return what earlier tries left; it stays so until this run marks another."""
        return tries_of(self.storage.list(f"{ATTEMPTS_FOLDER}/{unit_id}", ""), self.run_id)

    def mark(self, unit_id: str) -> None:
        """Leave the mark of a try, which is what this process is at from now on."""
        self.open.clear()
        self._mark(unit_id, "unit")

    def begin_row(self, unit_id: str, key: str) -> str:
        """Leave the mark of a row that is made alone; return it for ``end_row``."""
        return self._mark(unit_id, f"row-{key}")

    def end_row(self, mark: str) -> None:
        """Take the mark of a row away: it did not die."""
        self.open.discard(mark)
        self.storage.delete(mark)

    def end(self, unit_id: str) -> None:
        """Take all marks of a unit away: it is committed."""
        for name in self.storage.list(f"{ATTEMPTS_FOLDER}/{unit_id}", ""):
            self.storage.delete(name)

    def withdraw(self) -> None:
        """Take away the marks of what this process is at: it ends for a reason of its own."""
        for name in tuple(self.open):
            self.storage.delete(name)

    def clear(self) -> None:
        """Take all marks away: the run is finished, so no unit is being tried."""
        for name in tuple(self.storage.walk(ATTEMPTS_FOLDER)):
            self.storage.delete(name)

    def note_lost_device(self) -> int:
        """Note that a process lost its device; return how many did in this run."""
        self.storage.mark(f"{_LOST_DEVICES}/{self.run_id}.{secrets.token_hex(4)}")
        names = (name.rpartition("/")[2] for name in self.storage.list(_LOST_DEVICES, ""))
        return sum(name.startswith(f"{self.run_id}.") for name in names)

    def _mark(self, unit_id: str, what: str) -> str:
        name = f"{ATTEMPTS_FOLDER}/{unit_id}/{what}.{self.run_id}.{secrets.token_hex(4)}"
        self.open.add(name)
        self.storage.mark(name)
        return name


def tries_of(marks: Sequence[str], run_id: str) -> UnitTries:
    """Return what a unit's marks say to a try in the run ``run_id``."""
    num_begun = 0
    alone: Counter[tuple[str, str]] = Counter()
    for mark in marks:
        what, _, rest = mark.rpartition("/")[2].partition(".")
        if what == "unit":
            num_begun += 1
        else:
            alone[what.removeprefix("row-"), rest.partition(".")[0]] += 1
    deaths: Counter[str] = Counter()
    for (key, its_run), num_marks in alone.items():
        deaths[key] += num_marks if its_run == run_id else num_marks - 1
    return UnitTries(number=num_begun + 1, deaths_alone=+deaths)
