"""One power cut while a driver works, and what its user had learned before."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import Popen
from typing import Any

from faults.kit import Drivers, Sum, manifest, references
from faults.power import PowerDisk, end_all
from output_checks import OUTPUTS, Fact

from pipelines.leases.lease_record import LEASES_FOLDER
from pipelines.ledger.ledger import survey
from pipelines.planning.plan_uses import concepts_of
from pipelines.planning.references import reference_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import read_unit, rows_name

__all__ = ["Trial", "rows_made"]

DEADLINE_S = 120.0


@dataclass
class Trial:
    """Drivers on an output whose disk loses its power once.

    Attributes:
        ran: The drivers; the output is ``out`` on the disk, their logs are elsewhere.
        disk: The disk, mounted.
        made: Keys of the rows that were made before, by folder of the output.
    """

    ran: Drivers
    disk: PowerDisk
    made: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return Path(self.ran.settings.out)

    def cut(self, num_units: int, delay_s: float, **changes: Any) -> None:
        """Start a driver; a while after its lease and so many receipts, take the power away."""
        leases = self.out / LEASES_FOLDER
        number = 1 + sum(path.name.startswith("epoch-") for path in _entries(leases))
        claimed = leases / f"epoch-{number:09}.json"
        driver = self.ran.start(**changes)
        try:
            _wait(driver, claimed.exists)
            _wait(driver, lambda: sum(what == "unit" for what, _, _ in self.facts()) >= num_units)
            time.sleep(delay_s)
            self.disk.cut()
        finally:
            end_all(driver)
        self.disk.unmount()
        self.disk.mount()

    def facts(self) -> set[Fact]:
        """Return what the user knows: rows that were there before, and what drivers wrote down."""
        place = Path(str(self.ran.settings.facts))
        lines = place.read_text().splitlines() if place.exists() else []
        before = {("made", at, key) for at, keys in self.made.items() for key in keys}
        return before | {tuple(json.loads(line)) for line in lines}

    def sampled(self) -> list[str]:
        """Return the seeds of all rows that engines were given, in order."""
        log = Path(self.ran.settings.log)
        lines = log.read_text().splitlines() if log.exists() else []
        return [seed for line in lines for seed in line.split()[1:]]

    def add_up(self) -> Sum:
        """Return where the rows are; what is made once and for all was no waste."""
        total = self.ran.add_up()
        num_before = sum(map(len, self.made.values()))
        num_made = sum(map(len, rows_made(self.out).values())) - num_before
        return replace(total, waste=len(self.sampled()) - num_made - total.failed)

    def pending(self) -> Counter[str]:
        """Return how many rows there are of each seed that are not known to be made."""
        known: set[str | int] = set()
        for what, at, name in self.facts():
            if what == "made":
                known.add(name)
            elif what == "unit":
                known.update(read_unit(LocalStorage(self.out / at), rows_name(str(name)))[0])
        rows = manifest(self.ran.settings)
        how = references(self.ran.settings)
        wanted = [*rows, *(reference_rows(concepts_of(rows), how) if how else ())]
        return Counter(str(one.seed) for one in wanted if one.key not in known)


def rows_made(out: Path) -> dict[str, frozenset[str]]:
    """Return the keys of the rows that are made, by folder of the output."""
    return {at: survey(LocalStorage(out / at)).made for at in OUTPUTS}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _wait(driver: Popen[str], is_so: Callable[[], bool]) -> None:
    """Wait until it is so, or the driver has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so() and driver.poll() is None:
        assert time.monotonic() < deadline, "the driver did not come so far in time"
        time.sleep(0.002)
