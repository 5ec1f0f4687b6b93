"""The Ray Data graph: planned units in, receipts out.

    tickets ─► generate (actors) ─► score and store (actors) ─► receipts
                  ▲ units
               dealer (an actor beside the driver, if several actors generate)

Every ticket is a block of its own from the start: the driver hands them over one by one, because
Ray's Parquet reader packs small files into one block and its reading and repartitioning tasks ask
for a whole processor each, which a one-processor machine with a running actor does not have. A
ticket becomes a unit when an actor begins it, see ``dealing``. The options below never retry a
row's error (Ray would, without end) and never drop a block.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray import data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clora_core.recipe.errors import CloraError
from pipelines.fusing.fused_source import FusedSource
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import PlanReader
from pipelines.session.shares import Shares
from pipelines.stages import finish, generate
from pipelines.stages.commit import CommitUnits
from pipelines.stages.dealing import Dealer, PlanOrder
from pipelines.stages.finish import FinishUnits
from pipelines.stages.generate import GenerateImages
from pipelines.stages.model_host import LoadModelHost
from pipelines.stages.score import Centroids, LoadScorer, ScoreImages
from pipelines.units.message import UnitMessage
from pipelines.units.receipts import Receipt, read_receipts

SILENT_S = 24 * 3600.0
"""A cold start or a slow model may be silent for longer than Ray's half hour."""

TICKETS_PER_BOOK = 256

FEW_TICKETS = 64
"""As many are handed over one by one, in a fraction of a second."""

WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What each stage does; all of it can be sent to another machine.

    Attributes:
        plan: Reads units.
        load_model_host: Where generating actors get their model host.
        load_scorer: Where score actors get their scorer; None leaves images unscored.
        load_centroids: Where score actors get what images are compared with.
        store: Commits units.
        scores_windows: Whether windows of images are scored, too.
        fused: Where generating actors get fused adapters; None if no row needs one.
    """

    plan: PlanReader
    load_model_host: LoadModelHost
    load_scorer: LoadScorer | None
    load_centroids: Callable[[], Centroids]
    store: CommitUnits
    scores_windows: bool = True
    fused: FusedSource | None = None


def make_units(plan: Plan, stages: Stages, shares: Shares) -> Generator[Receipt]:
    """Make the units of ``plan``; yield their receipts when stored.

    Raises:
        StorageError, StoreAwayError, LeaseLostError, DamagedFileError: A stage met it.
        Exception: The machinery failed; rows that are committed stay so.
    """
    set_up_ray_data()
    store = stages.store
    receipts = (
        tickets(plan.num_units)
        .map_batches(
            GenerateImages,
            fn_constructor_kwargs={
                "take_unit": TakeUnit(_deal(plan, shares), stages.plan),
                "load_model_host": partial(stages.load_model_host, shares),
                "attempts": store.attempts,
                "fence": store.fence,
                "claims": store.claims,
                "fused": stages.fused,
            },
            compute=_generators(plan.num_units, shares),
            num_cpus=shares.generator_cpus,
            num_gpus=shares.generator_gpus or None,
            **WHOLE_BLOCKS,
        )
        .map_batches(
            FinishUnits,
            fn_constructor_kwargs={
                "load_score": partial(
                    ScoreImages,
                    stages.load_scorer,
                    stages.load_centroids,
                    scores_windows=stages.scores_windows,
                ),
                "store": store,
            },
            compute=ActorPoolStrategy(
                size=shares.num_helpers,
                max_concurrent_calls_per_actor=finish.AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=shares.helper_cpus,
            **WHOLE_BLOCKS,
        )
    )
    try:
        for batch in receipts.iter_batches(prefetch_batches=0, **WHOLE_BLOCKS):
            yield from read_receipts(batch)
    except RayTaskError as error:
        raise own_error(error) from error


def tickets(num_units: int) -> data.Dataset:
    """Return a block for each unit.

    Handed over one by one they take the driver some 40 kB and milliseconds each, so many are made
    when they are wanted, by a task that tears them from books: a block is as large as Ray is let
    make it, and no row is smaller than a byte. A few are there at once, and wait for no process.
    ``from_arrow`` would have a worker look at each block first.
    """
    if num_units <= FEW_TICKETS:
        return data.from_blocks(
            [_book(number, number + 1) for number in range(num_units)] or [_book(0, 0)]
        )
    context = data.DataContext.get_current()
    usual = context.target_max_block_size
    context.target_max_block_size = 1
    try:
        firsts = range(0, num_units, TICKETS_PER_BOOK)
        books = [_book(first, min(first + TICKETS_PER_BOOK, num_units)) for first in firsts]
        return data.from_blocks(books).map_batches(
            _torn, compute=TaskPoolStrategy(size=1), num_cpus=0, **WHOLE_BLOCKS
        )
    finally:
        context.target_max_block_size = usual


def _book(first: int, end: int) -> pa.Table:
    return pa.table({"ticket": pa.array(range(first, end), pa.int64())})


def _torn(book: pa.Table) -> Iterator[pa.Table]:
    """Yield the tickets of a book one by one."""
    for place in range(len(book)):
        yield book.slice(place, 1)


def _generators(num_units: int, shares: Shares) -> ActorPoolStrategy:
    """Return the pool of generating actors."""
    return ActorPoolStrategy(
        min_size=shares.num_generators,
        max_size=shares.max_generators,
        max_tasks_in_flight_per_actor=generate.tickets_each(num_units, shares),
        max_concurrent_calls_per_actor=generate.AT_ONCE,
        enable_true_multi_threading=True,
    )


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


class TakeUnit:
    """Finds out which unit a ticket is, and reads it; called in an actor."""

    def __init__(self, deal: Callable[[int], tuple[int, int]], plan: PlanReader) -> None:
        """Keep what says where the unit of a ticket is, and what reads it."""
        self._deal = deal
        self._plan = plan

    def __call__(self, ticket: int) -> UnitMessage:
        """Return the unit that this actor makes for ``ticket``."""
        part, place = self._deal(ticket)
        return self._plan.read(part, place)


class AskDealer:
    """Asks the dealer's actor which unit a ticket is for the actor that this is called in."""

    def __init__(self, dealer: Any) -> None:
        """Keep the handle of the dealer's actor."""
        self._dealer = dealer

    def __call__(self, ticket: int) -> tuple[int, int]:
        """Return the unit's part of the plan and its place there."""
        taker = ray.get_runtime_context().get_actor_id() or ""
        return ray.get(self._dealer.deal.remote(ticket, taker))


def _deal(plan: Plan, shares: Shares) -> Callable[[int], tuple[int, int]]:
    """Return what says which unit a ticket is."""
    if shares.max_generators == 1:
        return PlanOrder(plan.runs)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Dealer)
    return AskDealer(actor.options(num_cpus=0, scheduling_strategy=here).remote(plan.runs))
