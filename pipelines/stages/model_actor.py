"""The actor that holds base models: tickets of any phase in, units with pixels or receipts out.

It stays over all phases of a run, so a base model is loaded once an actor. It is called by
``AT_ONCE`` threads, so that the next unit is there when one is done: its rows and files are brought
while another is sampled. All sampling and fusing is done in one thread, one after another, and a
unit's try begins, and is marked, when its sampling does.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pyarrow as pa

from clora_core.recipe.fusion import Fusion
from pipelines.ledger.tries import TryMarks
from pipelines.metrics.actor import ActorMetrics
from pipelines.session.shares import Shares
from pipelines.stages.fuse_stage import CommitFused, fuse_one
from pipelines.stages.generate import prepare_unit, sample_unit
from pipelines.stages.leaving import device_is_lost, end_without_device, give_up_when_terminated
from pipelines.stages.model_host import ModelHost
from pipelines.stages.phases import FusionPhase, Latest, Phases, PhaseWork, UnitPhase
from pipelines.units.message import UnitMessage
from pipelines.units.receipts import receipt_table

AT_ONCE = 2
"""Units in an actor at the same time: one is sampled, one is brought or sent."""

MOST_EACH = 2 * AT_ONCE
"""Tickets of an actor, begun or not: Ray's driver looks ten times a second which are done."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Met:
    """A phase in an actor: what is done, and where this process marks its tries."""

    work: PhaseWork
    attempts: TryMarks


class ModelActor:
    """Actor of the generate stage; holds one model host for its life.

    Args:
        load_model_host: Makes the host, where the actor runs.
        phases: Says what tickets are.
    """

    def __init__(self, load_model_host: Callable[[], ModelHost], phases: Phases) -> None:
        self._phases = phases
        self._met = Latest(self._meet)
        give_up_when_terminated(self.withdraw)
        self._sampling = ThreadPoolExecutor(1, "sampling")
        self._host = self._sampling.submit(load_model_host).result()
        self._metrics = ActorMetrics()
        phases.arrive()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a message for each ticket of ``batch``, and the phase of each.

        A unit's has rows of ``schemas.GENERATED``, a fusion's the receipt of its adapter.

        Raises:
            LeaseLostError: The run was taken over.
            Exception: The device is lost, once too often.
        """
        numbers = zip(batch["phase"].to_pylist(), batch["ticket"].to_pylist(), strict=True)
        made = pa.concat_tables(self._make(*number).to_batch() for number in numbers)
        return made.append_column("phase", batch["phase"])

    def _make(self, phase: int, ticket: int) -> UnitMessage:
        met = self._met(phase)
        if isinstance(met.work, FusionPhase):
            return self._fuse(met.work.fusions[ticket], met.work.into, met.attempts)
        place = self._phases.place_of(phase, ticket)
        return self._generate(met.work, place, met.attempts)

    def _generate(self, work: UnitPhase, place: tuple[int, int], attempts: TryMarks) -> UnitMessage:
        store = work.store
        if store.fence is not None:
            store.fence.check()
        message = work.plan.read(*place)
        if store.claims is not None:
            message = store.claims.claim(message)
            if message.facts.is_idle:
                return message
        unit = prepare_unit(message, attempts, fused=work.fused)
        sample = partial(sample_unit, unit, self._host, attempts)
        made = self._in_turn(sample, attempts).message()
        self._metrics.observe(made)
        return made

    def _fuse(self, fusion: Fusion, into: CommitFused, attempts: TryMarks) -> UnitMessage:
        # All of it in turn: what only waits for another fusion is claimed by nobody yet.
        receipt = self._in_turn(partial(fuse_one, fusion, self._host, into, attempts), attempts)
        return UnitMessage(
            unit_id=receipt.unit_id, rows=receipt_table(receipt), facts=receipt.facts
        )

    def _in_turn(self, make: Callable[[], T], attempts: TryMarks) -> T:
        """Return what ``make`` returns in the one thread that computes."""

        def made() -> T:
            try:
                return make()
            except Exception as error:  # torch has no one class for a lost device; raised below
                if device_is_lost(error):
                    end_without_device(attempts, error)
                raise

        return self._sampling.submit(made).result()

    def _meet(self, phase: int) -> _Met:
        work = self._phases.work(phase)
        return _Met(work=work, attempts=work.attempts)

    def withdraw(self) -> None:
        """Take back the marks of what this process is at: nothing, before its first ticket."""
        if self._met.held is not None:
            _, met = self._met.held
            met.attempts.withdraw()


def tickets_each(num_tickets: int, shares: Shares) -> int:
    """Return how many tickets of a phase an actor has at most, begun or not.

    Each has some waiting, but no more than its part of them, or the actors that start first would
    get all the tickets of a small phase.
    """
    if shares.max_generators > shares.num_generators:
        # Ray adds actors only where those that are there have twice as many as they can begin.
        return MOST_EACH
    return max(1, min(MOST_EACH, math.ceil(num_tickets / shares.num_generators)))
