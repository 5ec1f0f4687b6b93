"""The tables of ``docs/faults.md``, written from what the tests measured."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.damage_table import Answer, damage_section
from faults.kit import Sum

HEAD = """\
# Faults

What happened to rows when something died or broke, and what each command does about damaged files.
Written by `make faults`.
Every line is a test.
*Lost* (rows that are neither made nor failed with a reason) and *doubled* (images beyond the first
of a row) must be 0, *waste* (rows computed beyond once each) at most the bound, and `clora verify`
must find nothing.
Rows are made by a fake sampler in milliseconds; processes, signals, Ray, files and the S3 server
(SeaweedFS) are real.
A store that is *away* refuses all connections from a request of some phase on; the command has its
default patience of 60 s, so it ends with 0 for shorter outages and with 1 for longer ones, and is
run again.
*Disk full* is an error that the storage is made to give, a *small disk* is a real one; expired
credentials are a refusal of the proxy before the server. Nodes are Ray nodes on one machine.
A *power cut* stops a real ext4 or XFS file system on a loop device (`FS_IOC_SHUTDOWN`, nothing is
flushed) at random moments; the driver is killed, what is left is mounted, and the same command runs
again. Rows that were reported as committed before the cut must still be there, and are not made
again.

"""


@dataclass(frozen=True)
class Line:
    """One fault, and what it came to."""

    fault: str
    is_remote: bool
    runs: int
    total: Sum
    bound: int


@dataclass(frozen=True)
class Tables:
    """What was measured so far, by tests in any order; ``CLORA_FAULTS_TABLE`` names the file."""

    lines: list[Line] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def write(self) -> None:
        """Write the file, if one is named."""
        place = os.environ.get("CLORA_FAULTS_TABLE")
        if place:
            damaged = damage_section(self.answers) if self.answers else ""
            Path(place).write_text(_fault_table(self.lines) + damaged)


TABLES = pytest.StashKey[Tables]()


def tables_of(config: pytest.Config) -> Tables:
    """Return the tables that all tests of a session share."""
    return config.stash.setdefault(TABLES, Tables())


def _fault_table(lines: Sequence[Line]) -> str:
    """Return the head and the table of faults, sorted by fault."""
    rows = ["| fault | output | runs | rows | failed | lost | doubled | waste | bound |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for line in sorted(lines, key=lambda line: line.fault):
        total = line.total
        cells = [
            line.fault,
            "S3" if line.is_remote else "disk",
            *(line.runs, total.num_rows, total.failed, total.lost, total.doubled),
            *(total.waste, line.bound),
        ]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    machine = (
        f"\nMeasured once each on {os.cpu_count()} shared CPU cores, {platform.system()}, "
        f"Python {platform.python_version()}.\n"
    )
    return HEAD + "\n".join(rows) + "\n" + machine
