from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.places import patience as patience_module
from manifests.places.patience import (
    LONGEST_PAUSE_S,
    SHORT_S,
    GaveUpError,
    Patience,
    status_may_pass,
)


class AwayError(Exception):
    """A failure of the moment."""


class World:
    """A clock that only pauses and requests move, and a store that is away until some time.

    Args:
        try_s: What each try takes.
        back_at_s: When the store answers again.
    """

    def __init__(self, *, try_s: float = 0.0, back_at_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.try_s = try_s
        self.back_at_s = 1000.0 + back_at_s
        self.begun_s: list[float] = []
        self.pauses_s: list[float] = []
        self.patience = Patience(lambda failure: isinstance(failure, AwayError))

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds + 1e-5  # as real ones, a little more

    def request(self) -> str:
        self.begun_s.append(self.now_s - 1000.0)
        is_back = self.now_s >= self.back_at_s
        self.now_s += self.try_s
        if not is_back:
            raise AwayError
        return "answer"

    def ask(self, retry_s: float, request: Callable[[], str] | None = None) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(patience_module, "time", self)
            return self.patience.repeated(request or self.request, retry_s=retry_s)


@given(
    retry_s=st.floats(0.01, 3600.0),
    share=st.floats(0.0, 0.999),
    try_s=st.sampled_from([0.0, 0.001, 5.0, 15.0, 500.0]),
)
def test_an_outage_that_is_no_longer_than_the_time_is_outlasted_however_a_try_fails(
    retry_s: float, share: float, try_s: float
):
    # An outage is seen when the first try has failed.
    world = World(try_s=try_s, back_at_s=try_s + retry_s * share)
    assert world.ask(retry_s) == "answer"


@given(
    retry_s=st.just(0.0) | st.floats(0.01, 3600.0),
    try_s=st.sampled_from([0.0, 0.001, 5.0, 15.0, 500.0]),
)
def test_a_store_that_stays_away_is_tried_once_more_when_the_time_is_over(
    retry_s: float, try_s: float
):
    world = World(try_s=try_s, back_at_s=1e9)
    with pytest.raises(GaveUpError):
        world.ask(retry_s)
    end_s = try_s + retry_s
    if retry_s == 0.0:
        assert world.begun_s == [0.0]
    else:
        assert sum(begun_s >= end_s for begun_s in world.begun_s) == 1
        # One that hangs when the time is over is waited for.
        assert world.begun_s[-1] <= end_s + try_s + 0.001


def test_pauses_grow_differ_and_stay_short_enough_to_find_a_store_that_came_back():
    worlds = [World(back_at_s=1e9) for _ in range(20)]
    for world in worlds:
        with pytest.raises(GaveUpError, match=r"^tried (1[5-9]|2\d) times in 60 s$"):
            world.ask(60.0)
        assert max(world.pauses_s) <= LONGEST_PAUSE_S
        assert world.pauses_s[0] <= 0.25
        assert world.pauses_s[0] < world.pauses_s[3] < world.pauses_s[6]
    assert len({world.pauses_s[0] for world in worlds}) == 20


def test_a_day_of_tries_is_no_number_too_large():
    world = World(back_at_s=86_399.0)
    assert world.ask(86_400.0) == "answer"


def test_an_answer_is_not_repeated_even_if_it_is_a_refusal():
    world = World()
    calls: list[None] = []

    def refused() -> str:
        calls.append(None)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        world.ask(60.0, refused)
    assert len(calls) == 1


def test_after_a_request_was_given_up_the_next_ones_are_short_until_one_is_answered():
    world = World(back_at_s=200.0)
    with pytest.raises(GaveUpError, match=r"^tried \d+ times in 60 s$") as gave_up:
        world.ask(60.0)
    assert isinstance(gave_up.value.failure, AwayError)
    for _ in range(3):
        begin_s = world.now_s
        with pytest.raises(GaveUpError, match=r"in 1 s, after another request was given up"):
            world.ask(60.0)
        assert world.now_s - begin_s == pytest.approx(SHORT_S, abs=0.01)
    world.now_s = 1200.0
    assert world.ask(60.0) == "answer"
    world.back_at_s = 1240.0
    assert world.ask(60.0) == "answer", "it has its whole time again"


def test_after_a_request_that_hung_was_given_up_the_next_ones_hang_once():
    world = World(try_s=15.0, back_at_s=1e9)
    with pytest.raises(GaveUpError):
        world.ask(60.0)
    world.begun_s.clear()
    with pytest.raises(GaveUpError, match=r"^tried once, after another request was given up$"):
        world.ask(60.0)
    assert len(world.begun_s) == 1


def test_a_request_was_given_up_so_long_ago_that_it_says_nothing_of_now():
    world = World(back_at_s=100.0)
    with pytest.raises(GaveUpError):
        world.ask(60.0)
    world.now_s += 61.0
    world.back_at_s = world.now_s + 59.0
    assert world.ask(60.0) == "answer"


def test_a_refusal_is_an_answer_of_a_store_that_is_there():
    world = World(back_at_s=60.5)

    def refused() -> str:
        raise FileNotFoundError

    with pytest.raises(GaveUpError):
        world.ask(60.0)
    with pytest.raises(FileNotFoundError):
        world.ask(60.0, refused)
    world.back_at_s = world.now_s + 30.0
    assert world.ask(60.0) == "answer"


def test_throttling_and_broken_servers_pass_and_refusals_do_not():
    passing = {status for status in range(100, 600) if status_may_pass(status)}
    assert {408, 429, 500, 502, 503, 504, 507} <= passing
    assert not passing & {200, 301, 400, 401, 403, 404, 405, 409, 412, 416, 501, 505}
