"""The board: what the phases of a graph are, in an actor beside the driver that takes no processor.

The driver adds a phase; the task that hands out tickets waits here for them, and actors ask here
what a phase's work is and which unit a ticket stands for. A phase is never removed, so a task or a
ticket that Ray runs again gets the same answers.

Its methods are coroutines of one event loop: a caller that waits blocks no thread, and no two run
at the same time, so nothing is locked.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Timer
from typing import Any

from pipelines.planning.unit_runs import UnitRun
from pipelines.stages.dealing import Dealer, beginning_with
from pipelines.stages.phases import PhaseWork

LOOK_S = 0.25
"""In that time Ray's driver has seen that an actor is there: it looks ten times a second."""


@dataclass(frozen=True, kw_only=True)
class PhaseTickets:
    """The tickets of a phase.

    Attributes:
        number: How many there are.
        each: How many an actor may have at most, begun or not; None if that is Ray's own limit.
        runs: Units that they stand for, in the plan's order; none for fusions.
    """

    number: int
    each: int | None
    runs: Sequence[UnitRun]

    def ready(self, *, num_actors: int, num_done: int) -> int:
        """Return how many may be handed out, of a phase of which some are done."""
        if self.each is None:
            return self.number
        # One actor is counted that may still be on its way, so the first waits for no word.
        return min(self.number, self.each * max(1, num_actors) + num_done)


class Board:
    """What phases are; see ``start_board``."""

    def __init__(self) -> None:
        self._phases: list[tuple[PhaseTickets, object, Dealer]] = []
        self._is_complete = False
        self._actors: set[str] = set()
        self._num_done = 0
        self._changed = asyncio.Condition()

    async def put_up(self, tickets: PhaseTickets, work: object, *, is_last: bool) -> None:
        """Put a phase up, when all tickets of the one before are done.

        Args:
            tickets: How many there are, and of what.
            work: What is done, as it is handed to those who ask.
            is_last: There will be no other.
        """
        models = [dealer.last_model for _, _, dealer in self._phases]
        # Units of the last one come first: an actor still holds it.
        held = next(filter(None, reversed(models)), None)
        async with self._changed:
            self._phases.append((tickets, work, Dealer(beginning_with(held, tickets.runs))))
            self._num_done = 0
            self._is_complete = is_last
            self._changed.notify_all()

    async def next_tickets(self, phase: int, end: int) -> tuple[int, int, int] | None:
        """Return tickets to hand out as soon as there are some: a phase, the first, after the last.

        Args:
            phase: Of the last tickets that were handed out.
            end: After the last of them.

        Returns:
            None if there are no others and will be none.
        """
        if phase < len(self._phases) and end == self._phases[phase][0].number:
            phase, end = phase + 1, 0
        await self._until(lambda: self._ready(phase) > end or self._is_over(phase))
        ready = self._ready(phase)
        return (phase, end, ready) if ready > end else None

    async def work(self, phase: int) -> object:
        """Return what is done with the tickets of a phase."""
        await self._until(lambda: phase < len(self._phases))
        return self._phases[phase][1]

    async def deal(self, phase: int, ticket: int, taker: str) -> tuple[int, int]:
        """Return the unit that ``taker`` makes for a ticket, see ``Dealer``."""
        await self._until(lambda: phase < len(self._phases))
        return self._phases[phase][2].deal(ticket, taker)

    async def arrive(self, actor: str) -> None:
        """Note that an actor takes tickets; one that was restarted counts once."""
        async with self._changed:
            self._actors.add(actor)
            self._changed.notify_all()

    async def done(self) -> None:
        """Note that a ticket of the latest phase is done."""
        async with self._changed:
            self._num_done += 1
            self._changed.notify_all()

    def _ready(self, phase: int) -> int:
        """Return how many tickets of a phase may be handed out: of one that is over, all."""
        if phase >= len(self._phases):
            return 0
        tickets = self._phases[phase][0]
        if phase < len(self._phases) - 1:
            return tickets.number
        return tickets.ready(num_actors=len(self._actors), num_done=self._num_done)

    def _is_over(self, phase: int) -> bool:
        return self._is_complete and phase >= len(self._phases)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(is_so)


class AskBoard:
    """The board as actors ask it.

    Args:
        board: The handle of its actor.
    """

    def __init__(self, board: Any) -> None:
        self._board = board

    def work(self, phase: int) -> PhaseWork:
        """Return what is done with the tickets of a phase."""
        ray = _ray()
        (reference,) = ray.get(self._board.work.remote(phase))
        return ray.get(reference)

    def place_of(self, phase: int, ticket: int) -> tuple[int, int]:
        """Return the unit that this actor makes for a ticket: its part of the plan, its place."""
        return _ray().get(self._board.deal.remote(phase, ticket, _this_actor()))

    def arrive(self) -> None:
        """Say that this actor takes tickets, once Ray's driver has seen it."""
        # Said earlier, its tickets might go to one that has its part already.
        say = Timer(LOOK_S, self._board.arrive.remote, [_this_actor()])
        say.daemon = True
        say.start()


def _this_actor() -> str:
    return _ray().get_runtime_context().get_actor_id() or ""


def start_board() -> Any:
    """Return the handle of a board's actor, on the driver's machine, whose fate it shares."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray = _ray()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Board)
    return actor.options(num_cpus=0, scheduling_strategy=here).remote()


def put_up(board: Any, work: PhaseWork, tickets: PhaseTickets, *, is_last: bool) -> None:
    """Put a phase up on a board; it holds the work by reference and need not read it."""
    board.put_up.remote(tickets, [_ray().put(work)], is_last=is_last)


def _ray() -> Any:
    """Return the module, imported late: Ray reads its environment when it is imported."""
    import ray

    return ray
