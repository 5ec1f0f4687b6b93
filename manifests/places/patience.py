"""Patience with a store that is away: a request that fails is repeated until a time is over.

What counts is time and not tries: a refused connection fails at once and a hanging one after many
seconds, and an outage lasts as long for both.
"""

import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

from clora_core.recipe.errors import CloraError

RETRY_S = 60.0
"""For how long a failing request is repeated, counted from its first failure."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
"""So that a store that comes back is soon used again."""

SHORT_S = 1.0
"""The time for requests to a store that another request was just given up on."""

_NUM_DOUBLINGS = 10
Result = TypeVar("Result")


class GaveUpError(CloraError):
    """A request failed for too long; the message says how often and for how long it was tried.

    Attributes:
        failure: What the last try raised.
    """

    exit_code = 1

    def __init__(self, failure: Exception, tried: str) -> None:
        super().__init__(tried)
        self.failure = failure


class Patience:
    """The patience of this process with one store.

    Once a request was given up, others that begin are tried for a second, until one of them gets
    an answer: the last things that a run does would each take the whole time again.

    Args:
        may_pass: Whether a failure is one of the moment. All others are answers of the store.
    """

    def __init__(self, may_pass: Callable[[Exception], bool]) -> None:
        self._may_pass = may_pass
        self._gave_up_at_s: float | None = None

    def repeated(self, request: Callable[[], Result], *, retry_s: float) -> Result:
        """Return what ``request`` gives, repeating it while it fails.

        Pauses grow up to a few seconds and are jittered. The last try begins when the time is
        over, so an outage that is no longer is outlasted, and a request that hangs takes longer.

        Args:
            request: Gives the same however often it is made.
            retry_s: For how long, from the first failure; 0 for one try.

        Raises:
            GaveUpError: The time is over.
            Exception: An answer of the store that is none of the moment.
        """
        start_s = time.monotonic()
        given_up_s = self._gave_up_at_s
        is_away = given_up_s is not None and start_s - given_up_s <= retry_s
        # Of a store that is known to be away, one try that hangs says enough.
        end_s = start_s + min(retry_s, SHORT_S) if is_away else None
        for num_tries in count(1):
            begun_s = time.monotonic()
            try:
                result = request()
            except Exception as failure:  # each client has classes of its own; may_pass knows them
                if not self._may_pass(failure):
                    self._gave_up_at_s = None
                    raise
                now_s = time.monotonic()
                end_s = now_s + retry_s if end_s is None else end_s
                if (now_s if is_away or retry_s == 0.0 else begun_s) >= end_s:
                    self._gave_up_at_s = now_s
                    tried = _tried(num_tries, now_s - start_s, is_away=is_away)
                    raise GaveUpError(failure, tried) from failure
            else:
                self._gave_up_at_s = None
                return result
            limit_s = FIRST_PAUSE_S * 2 ** min(num_tries - 1, _NUM_DOUBLINGS)
            limit_s = min(LONGEST_PAUSE_S, limit_s)
            # All workers of a run meet an outage at once and must not come back at once.
            pause_s = random.uniform(limit_s / 2, limit_s)  # noqa: S311
            time.sleep(max(0.0, min(pause_s, end_s - now_s)))
        raise AssertionError("unreachable: the last try returns or raises")


def status_may_pass(status: int) -> bool:
    """Return whether an HTTP status is one of the moment: throttling, timeouts, a broken server."""
    not_implemented, wrong_version = 501, 505
    is_server = 500 <= status < 600 and status not in (not_implemented, wrong_version)
    return is_server or status in (408, 425, 429)


def _tried(num_tries: int, seconds: float, *, is_away: bool) -> str:
    if num_tries == 1:
        tried = "tried once"
    else:
        tried = f"tried {num_tries:,} times in {round(seconds, None if seconds >= 1 else 1):g} s"
    return f"{tried}, after another request was given up" if is_away else tried
