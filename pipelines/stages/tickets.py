"""Tickets as Ray Data gets them: a block each from the start.

The driver hands them over, because Ray's Parquet reader packs small files into one block and its
reading and repartitioning tasks ask for a whole processor each, which a one-processor machine with
a running actor does not have.

A run of one phase has all its tickets when its graph begins. Those of several phases come from a
task that takes no processor and waits for the next phase while actors keep their models.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
from ray import data
from ray.data import TaskPoolStrategy

TICKETS_PER_BOOK = 256

FEW_TICKETS = 64
"""As many are handed over one by one, in a fraction of a second."""

WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}


def tickets_of_one_phase(num_tickets: int) -> data.Dataset:
    """Return a block for each ticket of phase 0.

    Handed over one by one they take the driver some 40 kB and milliseconds each, so many are made
    when they are wanted, by a task that tears them from books. A few are there at once, and wait
    for no process. ``from_arrow`` would have a worker look at each block first.
    """
    if num_tickets <= FEW_TICKETS:
        return data.from_blocks([_book(0, number, number + 1) for number in range(num_tickets)])
    firsts = range(0, num_tickets, TICKETS_PER_BOOK)
    books = [_book(0, first, min(first + TICKETS_PER_BOOK, num_tickets)) for first in firsts]
    with _a_block_a_row():
        return _torn(data.from_blocks(books), _tear)


def tickets_of_phases(board: Any) -> data.Dataset:
    """Return a block for each ticket of every phase of a board, when it is to be handed over.

    Args:
        board: The handle of the actor, see ``board``.
    """

    def wait_and_tear(_: pa.Table) -> Iterator[pa.Table]:
        phase, end = 0, 0
        # Asked from the beginning, so a task that Ray runs again yields the same once more.
        while ready := ray.get(board.next_tickets.remote(phase, end)):
            phase, first, end = ready
            yield from _tear(_book(phase, first, end))

    with _a_block_a_row():
        return _torn(data.from_blocks([_book(0, 0, 1)]), wait_and_tear)


def _torn(books: data.Dataset, tear: Any) -> data.Dataset:
    # ``max_calls=0`` is what it is anyway; but Ray makes one stage of this and the next if their
    # options are equal, and an actor would get a whole book at a time.
    return books.map_batches(
        tear, compute=TaskPoolStrategy(size=1), num_cpus=0, max_calls=0, **WHOLE_BLOCKS
    )


@contextmanager
def _a_block_a_row() -> Generator[None]:
    """Let stages that are made meanwhile give each row a block: no row is smaller than a byte."""
    context = data.DataContext.get_current()
    usual = context.target_max_block_size
    context.target_max_block_size = 1
    try:
        yield
    finally:
        context.target_max_block_size = usual


def _book(phase: int, first: int, end: int) -> pa.Table:
    numbers = pa.array(range(first, end), pa.int64())
    return pa.table({"phase": pa.array([phase] * len(numbers), pa.int64()), "ticket": numbers})


def _tear(book: pa.Table) -> Iterator[pa.Table]:
    """Yield the tickets of a book one by one."""
    for place in range(len(book)):
        yield book.slice(place, 1)
