"""How a generating process ends before its work does.

*Its device is lost.* Everything it samples from then on fails, whatever the row. So it ends itself,
and the process that Ray starts in its place gets a fresh context on the device. How often that
happened is kept in the output: a run that loses too many ends, loudly, with nothing blamed on rows.

*Its machine is taken away* (SIGTERM: a spot machine that is wanted back, a pod that is evicted).
There are seconds left and nobody to give a result to, so the unit is given up at once and the marks
of its try are taken back, because no row had a part in it. Ray runs the ticket again elsewhere; a
node that is only being drained gets no new tickets and finishes its unit.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

from pipelines.ledger.tries import TryMarks

MAX_LOST_DEVICES = 5
"""In one run. A row that takes its device with it is found and set aside after three."""

_SIGNS = ("AcceleratorError", "CUDA error", "device-side assert", "ECC error")


def device_is_lost(error: Exception) -> bool:
    """Return whether nothing can be sampled in this process any more."""
    text = f"{type(error).__name__}: {error}"
    return any(sign in text for sign in _SIGNS)


def end_without_device(attempts: TryMarks, error: Exception) -> None:
    """End this process, unless the run has lost too many devices: then return, to raise."""
    num_lost = attempts.note_lost_device()
    if num_lost > MAX_LOST_DEVICES:
        return
    print(
        f"device lost for the {num_lost}. time in this run, ending process {os.getpid()}: {error}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def give_up_when_terminated(withdraw: Callable[[], None]) -> None:
    """Let SIGTERM end this process once ``withdraw`` has taken the marks of its try back.

    Ray's own handler would have the unit finished first, and then lose it.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def give_up(signal_number: int, _frame: object) -> None:
        try:
            withdraw()
        finally:
            os._exit(128 + signal_number)

    signal.signal(signal.SIGTERM, give_up)
