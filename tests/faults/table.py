"""The table of ``docs/faults.md``, written from what the tests measured."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.kit import Sum

HEAD = """\
# Faults

What became of rows when something died or broke, written by `make faults`.
Every line is a test.
*Lost* (rows that are neither made nor failed with a reason) and *doubled* (images beyond the first
of a row) must be 0, *waste* (rows computed beyond once each) at most the bound, and `clora verify`
must find nothing.
Rows are made by a fake sampler in milliseconds; processes, signals, Ray, files and the S3 server
(SeaweedFS) are real.
*Disk full* is an error that the storage is made to give, a *small disk* is a real one; expired
credentials are a refusal of the proxy before the server. Nodes are Ray nodes on one machine.

"""


@dataclass(frozen=True)
class Line:
    """One fault, and what it came to."""

    fault: str
    is_remote: bool
    runs: int
    total: Sum
    bound: int


def write_table(place: Path, lines: Sequence[Line]) -> None:
    """Write the table, sorted by fault."""
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
    place.write_text(HEAD + "\n".join(rows) + "\n" + machine)
