"""How a run shows that it lives, and how others see that it doesn't.

A run changes a value in a file every few seconds. Others take it for dead if the value stays as it
is for long enough while they look. No clocks of two machines are compared, and time in which nobody
could look, because the store was away, does not count.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.storage.error import StorageError

Beat = tuple[int, str]
"""What changes while a run lives: a count, and when it was written."""


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """How often a run shows that it lives, and after how long a silence it is taken for dead."""

    beat_s: float = 5.0
    silence_s: float = 30.0


class Heartbeat:
    """A thread that calls a function every few seconds.

    Args:
        beat: Shows that the run lives; returns whether there is still a reason to.
        every_s: From the end of one call to the next.
        name: Of the thread.
    """

    def __init__(self, beat: Callable[[], bool], *, every_s: float, name: str) -> None:
        self._beat = beat
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, after the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, once a call that is under way returns."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                if not self._beat():
                    return
            except (StorageError, OSError):
                # A store that is down now may be up at the next beat.
                continue


class SilenceWatch:
    """How long one run has been silent, as somebody else sees it.

    Args:
        times: Of the run, or of the one who looks, because nothing else is known.
        beat: What was seen first.
    """

    def __init__(self, times: LeaseTimes, beat: Beat) -> None:
        self._times = times
        self._beat = beat
        self._silent_s = 0.0

    def is_dead(self, beat: Beat, *, waited_s: float, looked_s: float) -> bool:
        """Return whether the run was silent for long enough.

        Args:
            beat: What is seen now.
            waited_s: Since the look before this one ended.
            looked_s: What this look took. If that is longer than a beat, the run may have had to
                wait as long to write one.
        """
        if beat != self._beat or looked_s > self._times.beat_s:
            self._beat = beat
            self._silent_s = 0.0
        else:
            self._silent_s += waited_s
        return self._silent_s >= self._times.silence_s
