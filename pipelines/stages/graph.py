"""The Ray Data graph: tickets of a run's phases in, receipts out.

    tickets ─► generate (actors) ─► score and store (actors) ─► receipts
       ▲          ▲ works, units       ▲ works
       └────── board (an actor beside the driver) ◄── the driver puts phases up

One graph makes one phase after another, so its actors keep their base model and their scorer. The
driver knows how many tickets a phase has, so it is over with as many receipts; then what the next
one needs is made ready, and it is put up. A graph whose first phase is the last has all its tickets
from the start, and if one actor generates it needs no board.

A ticket becomes a unit when an actor begins it, see ``dealing``. The options below never retry a
row's error (Ray would, without end) and never drop a block.
"""

import logging
from collections.abc import Generator, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any

import ray
from ray import data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayTaskError

from clora_core.recipe.errors import CloraError
from pipelines.planning.plan import Plan
from pipelines.planning.unit_runs import UnitRun
from pipelines.session.shares import Shares
from pipelines.stages import finish, model_actor
from pipelines.stages.board import AskBoard, PhaseTickets, put_up, start_board
from pipelines.stages.finish import FinishUnits
from pipelines.stages.model_actor import MOST_EACH, ModelActor, tickets_each
from pipelines.stages.model_host import LoadModelHost
from pipelines.stages.phases import FusionPhase, OnePhase, Phases, PhaseWork, UnitPhase
from pipelines.stages.score import LoadScorer
from pipelines.stages.tickets import WHOLE_BLOCKS, tickets_of_one_phase, tickets_of_phases
from pipelines.units.receipts import Receipt, read_receipts

SILENT_S = 24 * 3600.0
"""A cold start or a slow model may be silent for longer than Ray's half hour."""


class Engine:
    """Makes the phases of a run, one after another; ends its actors when its block ends.

    Args:
        load_model_host: Where generating actors get their model host.
        load_scorer: Where score actors get their scorer; None leaves images unscored.
        shares: What they may use.
    """

    def __init__(
        self, *, load_model_host: LoadModelHost, load_scorer: LoadScorer | None, shares: Shares
    ) -> None:
        self._load_model_host = load_model_host
        self._load_scorer = load_scorer
        self._shares = shares
        self._board: Any = None
        self._receipts: Generator[Receipt] | None = None

    def __enter__(self) -> "Engine":
        """Return itself; actors start with the first phase."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End the actors."""
        self._end()

    def make_units(
        self, plan: Plan, work: UnitPhase, *, is_last: bool = False
    ) -> Generator[Receipt]:
        """Make the units of ``plan``; yield their receipts when stored.

        Args:
            plan: The units.
            work: What is done with them.
            is_last: Nothing else is to be made, so actors may go as soon as they are free.

        Raises:
            StorageError, StoreAwayError, LeaseLostError, DamagedFileError: A stage met it.
            Exception: The machinery failed; rows that are committed stay so.
        """
        return self._make(work, plan.num_units, plan.runs, is_last=is_last)

    def make_fusions(self, work: FusionPhase) -> Generator[Receipt]:
        """Make adapters that no other run makes; yield a receipt of each.

        Raises:
            StorageError, StoreAwayError, LeaseLostError: A stage met it.
            Exception: The machinery failed; adapters that are committed stay so.
        """
        return self._make(work, len(work.fusions), (), is_last=False)

    def _make(
        self, work: PhaseWork, num_tickets: int, runs: Sequence[UnitRun], *, is_last: bool
    ) -> Generator[Receipt]:
        if not num_tickets:
            return
        is_kept = False
        try:
            is_waiting = False
            for receipt in self._phase(work, num_tickets, runs, is_last=is_last):
                is_waiting = is_waiting or bool(receipt.facts.held_by)
                yield receipt
            # A run that waits for another one holds no GPU that the other may need.
            is_kept = not (is_last or is_waiting)
        finally:
            # At once, also if the run stops: actors hold processors until then.
            if not is_kept:
                self._end()

    def _phase(
        self, work: PhaseWork, num_tickets: int, runs: Sequence[UnitRun], *, is_last: bool
    ) -> Generator[Receipt]:
        """Make a phase, on a graph of its own if there is none; yield its receipts."""
        set_up_ray_data()
        shares, each = self._shares, tickets_each(num_tickets, self._shares)
        if self._receipts is None and is_last:
            # Its tickets are known, so no process comes before its first unit that need not.
            self._board = start_board() if shares.max_generators > 1 else None
            phases = OnePhase(work, runs) if self._board is None else AskBoard(self._board)
            self._receipts = self._run(tickets_of_one_phase(num_tickets), phases, each)
        elif self._receipts is None:
            self._board = start_board()
            self._receipts = self._run(
                tickets_of_phases(self._board), AskBoard(self._board), MOST_EACH
            )
        is_small = each < MOST_EACH
        if self._board is not None:
            tickets = PhaseTickets(
                number=num_tickets, each=each if is_small else None, runs=tuple(runs)
            )
            put_up(self._board, work, tickets, is_last=is_last)
        for receipt in self._receipts if is_last else islice(self._receipts, num_tickets):
            if is_small and self._board is not None:
                self._board.done.remote()
            yield receipt

    def _run(self, tickets: data.Dataset, phases: Phases, each: int) -> Generator[Receipt]:
        """Run a graph, from the first receipt that is asked for; yield the receipts.

        Args:
            tickets: A block each.
            phases: Says what they are.
            each: How many a generating actor has at most.
        """
        shares = self._shares
        stored = tickets.map_batches(
            ModelActor,
            fn_constructor_kwargs={
                "load_model_host": partial(self._load_model_host, shares),
                "phases": phases,
            },
            compute=ActorPoolStrategy(
                min_size=shares.num_generators,
                max_size=shares.max_generators,
                max_tasks_in_flight_per_actor=each,
                max_concurrent_calls_per_actor=model_actor.AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=shares.generator_cpus,
            num_gpus=shares.generator_gpus or None,
            **WHOLE_BLOCKS,
        ).map_batches(
            FinishUnits,
            fn_constructor_kwargs={"load_scorer": self._load_scorer, "phases": phases},
            compute=ActorPoolStrategy(
                size=shares.num_helpers,
                max_concurrent_calls_per_actor=finish.AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=shares.helper_cpus,
            **WHOLE_BLOCKS,
        )
        try:
            for batch in stored.iter_batches(prefetch_batches=0, **WHOLE_BLOCKS):
                yield from read_receipts(batch)
        except RayTaskError as error:
            raise own_error(error) from error

    def _end(self) -> None:
        receipts, self._receipts = self._receipts, None
        board, self._board = self._board, None
        if receipts is not None:
            receipts.close()
        if board is not None:
            ray.kill(board)


def set_up_ray_data() -> None:
    """Set the options that every graph of this process runs with."""
    _silence_console()
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = SILENT_S
    # Ray's own wrapper would lose which error it was.
    context.raise_original_map_exception = True


def _silence_console() -> None:
    """Keep Ray Data's log to its files; what ends a run is raised, and needs no second traceback.

    Not done earlier, because importing ``ray.data`` sets its logging up.
    """
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


def own_error(error: RayTaskError) -> Exception:
    """Return what a stage raised, if that is a sentence for the user; else Ray's error."""
    cause = error.cause
    if not isinstance(cause, CloraError):
        return error
    # Ray puts advice on its own settings after the message.
    cause.args = tuple(str(part).partition("\nFailed to apply UDF")[0] for part in cause.args)
    return cause
