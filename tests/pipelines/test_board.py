"""The board hands tickets out when their phase is up, and gives the same answers again."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from pipelines.planning.unit_runs import DealingOrder, UnitNeeds, UnitRun
from pipelines.stages.board import Board, PhaseTickets

T = TypeVar("T")


def units(number: int, first: int = 0, model: str = "", attempt: int = 1) -> UnitRun:
    order = DealingOrder(attempt, model, "", "", 8, 8, "clora")
    needs = UnitNeeds(attempt, frozenset({model}))
    return UnitRun(order=order, needs=needs, part=0, first=first, num_units=number)


def phase(number: int, each: int | None = None) -> PhaseTickets:
    return PhaseTickets(number=number, each=each, runs=[units(number)])


async def soon(asked: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a question that was asked, and waits if it has to."""
    task = asyncio.ensure_future(asked)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def test_tickets_wait_for_the_next_phase_and_end_after_the_last():
    async def asked() -> None:
        board = Board()
        first = await soon(board.next_tickets(0, 0))
        assert not first.done()
        await board.put_up(phase(3), "references", is_last=False)
        assert await first == (0, 0, 3)
        second = await soon(board.next_tickets(0, 3))
        assert not second.done()
        await board.put_up(phase(2), "rows", is_last=True)
        assert await second == (1, 0, 2)
        assert await board.next_tickets(1, 2) is None
        assert [await board.work(number) for number in (0, 1)] == ["references", "rows"]

    asyncio.run(asked())


def test_a_task_that_asks_from_the_beginning_again_gets_the_same_tickets():
    async def asked() -> None:
        board = Board()
        await board.put_up(phase(3, each=1), "references", is_last=False)
        assert await board.next_tickets(0, 0) == (0, 0, 1)
        await board.put_up(phase(2), "rows", is_last=True)
        asked = (0, 0)
        tickets = list[tuple[int, int]]()
        while ready := await board.next_tickets(*asked):
            number, start, end = ready
            tickets += [(number, ticket) for ticket in range(start, end)]
            asked = number, end
        assert tickets == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]

    asyncio.run(asked())


def test_tickets_of_a_small_phase_go_out_as_actors_come_and_as_others_are_done():
    """Each actor has its part at most, and none waits for actors that never come."""

    async def asked() -> None:
        board = Board()
        await board.put_up(phase(5, each=2), "references", is_last=True)
        assert await board.next_tickets(0, 0) == (0, 0, 2)
        more = await soon(board.next_tickets(0, 2))
        await board.arrive("one")
        await board.arrive("one")  # restarted by Ray
        assert not more.done()
        await board.done()
        assert await more == (0, 2, 3)
        await board.arrive("two")
        assert await board.next_tickets(0, 3) == (0, 3, 5)
        assert await board.next_tickets(0, 5) is None

    asyncio.run(asked())


def test_the_next_phase_counts_its_own_tickets():
    async def asked() -> None:
        board = Board()
        await board.put_up(phase(2, each=1), "references", is_last=False)
        for _ in range(2):
            await board.done()
        await board.put_up(phase(2, each=1), "rows", is_last=True)
        assert await board.next_tickets(0, 2) == (1, 0, 1)

    asyncio.run(asked())


def test_units_are_dealt_by_phase_also_to_an_actor_that_is_quicker_than_the_driver():
    async def asked() -> None:
        board = Board()
        early = await soon(board.deal(0, 0, "one"))
        assert not early.done()
        await board.put_up(phase(2), "references", is_last=False)
        assert await early == (0, 0)
        await board.put_up(phase(2), "rows", is_last=True)
        assert await board.deal(1, 0, "two") == (0, 0)
        # Ray runs a ticket again: the same unit.
        assert await board.deal(0, 0, "three") == (0, 0)
        assert await board.deal(0, 1, "one") == (0, 1)
        with pytest.raises(IndexError, match="dealt out"):
            await board.deal(0, 2, "one")

    asyncio.run(asked())


def test_a_phase_begins_with_the_base_model_that_the_one_before_ended_with():
    """What failed before still waits for what is new, and adapters in between change nothing."""
    runs = [units(2, model="a"), units(1, first=2, model="b")]
    rows = [*runs, units(1, first=3, model="b", attempt=2)]

    async def asked() -> None:
        board = Board()
        await board.put_up(PhaseTickets(number=3, each=None, runs=runs), "", is_last=False)
        first = [await board.deal(0, ticket, "one") for ticket in range(3)]
        await board.put_up(PhaseTickets(number=1, each=None, runs=()), "", is_last=False)
        await board.put_up(PhaseTickets(number=4, each=None, runs=rows), "", is_last=True)
        second = [await board.deal(2, ticket, "one") for ticket in range(4)]
        assert [place for _, place in first] == [0, 1, 2]
        assert [place for _, place in second] == [2, 0, 1, 3]

    asyncio.run(asked())
