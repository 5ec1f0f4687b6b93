"""What a phase of a run has its actors do, and where an actor learns it.

Actors live through all phases of a run. A ticket is the number of a phase and a number within it,
which says what the actor is to do. An actor asks for a phase's work when it meets its
first ticket of it, and keeps that of the latest. Only one phase at a time has tickets under way.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Protocol, TypeVar

from clora_core.recipe.fusion import Fusion
from pipelines.fusing.fused_source import FusedSource
from pipelines.ledger.tries import TryMarks
from pipelines.planning.plan_files import PlanReader
from pipelines.planning.unit_runs import UnitRun
from pipelines.stages.commit import CommitUnits
from pipelines.stages.dealing import PlanOrder
from pipelines.stages.fuse_stage import CommitFused
from pipelines.stages.score import Centroids

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class UnitPhase:
    """Units of a plan are sampled, scored and committed; can be sent to any machine.

    Attributes:
        plan: Reads units.
        load_centroids: Where score actors get what images are compared with.
        store: Commits units.
        scores_windows: Whether windows of images are scored, too.
        fused: Where generating actors get fused adapters; None if no row needs one.
    """

    plan: PlanReader
    load_centroids: Callable[[], Centroids]
    store: CommitUnits
    scores_windows: bool = True
    fused: FusedSource | None = None

    @property
    def attempts(self) -> TryMarks:
        """Where tries of units are marked."""
        return self.store.attempts


@dataclass(frozen=True, kw_only=True)
class FusionPhase:
    """Adapters are fused and committed, each a ticket; can be sent to any machine.

    Attributes:
        fusions: By the numbers of tickets.
        into: Where they are committed.
    """

    fusions: tuple[Fusion, ...]
    into: CommitFused

    @property
    def attempts(self) -> TryMarks:
        """Where tries of fusions are marked."""
        return self.into.attempts


PhaseWork = UnitPhase | FusionPhase


class Phases(Protocol):
    """What an actor asks; can be sent to any machine."""

    def work(self, phase: int, /) -> PhaseWork:
        """Return what is done with the tickets of a phase."""
        ...

    def place_of(self, phase: int, ticket: int, /) -> tuple[int, int]:
        """Return the unit that this actor makes for a ticket: its part of the plan, its place."""
        ...

    def arrive(self) -> None:
        """Say that this actor takes tickets."""
        ...


class OnePhase:
    """One phase that one actor generates: units are made in their order, and nobody is asked.

    Args:
        work: What is done.
        runs: Its units, in the plan's order; none for fusions.
    """

    def __init__(self, work: PhaseWork, runs: Iterable[UnitRun]) -> None:
        self._work = work
        self._order = PlanOrder(runs)

    def work(self, _phase: int, /) -> PhaseWork:
        """Return what is done."""
        return self._work

    def place_of(self, _phase: int, ticket: int, /) -> tuple[int, int]:
        """Return the unit of the ticket's number."""
        return self._order(ticket)

    def arrive(self) -> None:
        """Say nothing: tickets wait for nobody."""


class Latest(Generic[T]):
    """What an actor keeps for the latest phase that it met; asked by several threads.

    Args:
        make: Makes it, from the number of the phase.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._making = Lock()
        self.held: tuple[int, T] | None = None

    def __call__(self, phase: int) -> T:
        """Return what is kept for ``phase``."""
        with self._making:
            if self.held is None or self.held[0] != phase:
                self.held = phase, self._make(phase)
            return self.held[1]
