"""Progress of a command that copies: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress

from jobs.console.progress import LINE_EVERY_S


@contextmanager
def counted(
    what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[int, int], None]]:
    """Give what is called with (done, all); a command of few seconds says nothing.

    Args:
        what: Is copied, in the plural.
        stream: Where progress goes; None for standard error as it is when the command runs.
        clock: Seconds that only grow; tests give their own.
    """
    shown: TextIO = stream or sys.stderr
    if shown.isatty():
        with Progress(console=Console(file=shown), transient=True) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    last_s = clock()

    def say(done: int, total: int) -> None:
        nonlocal last_s
        if clock() - last_s >= LINE_EVERY_S:
            last_s = clock()
            print(f"{what} {done:,}/{total:,}", file=shown, flush=True)

    yield say
