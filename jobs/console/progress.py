"""Progress of a run: a bar on a terminal, a line every so often elsewhere.

Both tell how many rows are done, how many failed, the rate and the time left. Where nobody watches
a line comes after half a minute or a tenth of the rows, whichever is first, so that neither a short
run nor a night of them fills a log.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pipelines.request import Observer
from pipelines.units.receipts import Phase, Receipt

LINE_EVERY_S = 30.0
LINES_A_PHASE = 10


@contextmanager
def open_progress(stream: TextIO) -> Generator[Observer]:
    """Give the progress that suits ``stream``; a terminal is left as it was."""
    if not stream.isatty():
        yield LineProgress(stream)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as bars:
        yield BarProgress(bars)


class _Counts:
    """Rows of one phase so far."""

    def __init__(self, phase: Phase, num_rows: int, clock: Callable[[], float]) -> None:
        self.phase = phase
        self.num_rows = num_rows
        self.num_done = 0
        self.num_failed = 0
        self._clock = clock
        self._start = clock()

    def add(self, receipt: Receipt) -> None:
        self.num_done += len(receipt.rows)
        self.num_failed += receipt.num_failed

    def rate(self) -> str:
        """Return ``1.2 rows/s, 3 min left``, or nothing before there is a rate."""
        elapsed_s = self._clock() - self._start
        if not self.num_done or elapsed_s <= 0:
            return ""
        rows_per_s = self.num_done / elapsed_s
        left_s = (self.num_rows - self.num_done) / rows_per_s
        left = f", {duration(left_s)} left" if self.num_done < self.num_rows else ""
        what = "adapters" if self.phase is Phase.FUSIONS else "rows"
        return f"{rows_per_s:.2g} {what}/s{left}"

    def line(self) -> str:
        """Return e.g. ``images 16/24, 1 failed, 0.5 rows/s, 16 s left``."""
        parts = [f"{self.phase} {self.num_done:,}/{self.num_rows:,}"]
        if self.num_failed:
            parts.append(f"{self.num_failed:,} failed")
        rate = self.rate()
        return ", ".join([*parts, rate] if rate else parts)


class LineProgress:
    """Progress for logs and pipes.

    Args:
        stream: Where lines go.
        clock: Seconds that only grow; tests give their own.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._counts = _Counts(Phase.IMAGES, 0, clock)
        self._last_line_s = 0.0
        self._rows_at_last_line = 0

    def begin(self, phase: Phase, num_rows: int) -> None:
        """Say what is to come; the first unit waits for the model to load."""
        self._counts = _Counts(phase, num_rows, self._clock)
        self._say()

    def stored(self, receipt: Receipt) -> None:
        """Count a unit, and say so if it is time."""
        self._counts.add(receipt)
        counts = self._counts
        rows_since = counts.num_done - self._rows_at_last_line
        is_time = self._clock() - self._last_line_s >= LINE_EVERY_S
        is_tenth = rows_since * LINES_A_PHASE >= counts.num_rows
        if is_time or is_tenth or counts.num_done == counts.num_rows:
            self._say()

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream, flush=True)

    def _say(self) -> None:
        self._last_line_s = self._clock()
        self._rows_at_last_line = self._counts.num_done
        self.note(self._counts.line())


class BarProgress:
    """Progress for a terminal: a bar for each phase."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._counts = _Counts(Phase.IMAGES, 0, time.monotonic)
        self._task: TaskID | None = None

    def begin(self, phase: Phase, num_rows: int) -> None:
        """Start a bar of its own for the phase."""
        self._counts = _Counts(phase, num_rows, time.monotonic)
        self._task = self._bars.add_task(phase, total=num_rows, status="loading the model")

    def stored(self, receipt: Receipt) -> None:
        """Move the bar."""
        counts = self._counts
        counts.add(receipt)
        failed = f"{counts.num_failed:,} failed " if counts.num_failed else ""
        if self._task is not None:
            self._bars.update(
                self._task, completed=counts.num_done, status=f"{failed}{counts.rate()}"
            )

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(text, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """Return a length of time as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min"
    return f"{hours / 24:.1f} days"
