"""Work in a store that several runs share: each piece done by one of them, the others wait for it.

A pass does what nobody else is doing. What others held is then waited for, and done here after all
if its run is over before it is done.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import closing

from pipelines.leases.claims import wait_until_free
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.storage.storage import Storage
from pipelines.units.receipts import Receipt


def share_work(
    works: Collection[str],
    do: Callable[[Collection[str]], Generator[Receipt]],
    storage: Storage,
    *,
    find_done: Callable[[], Collection[str]],
    receipts_of: Callable[[Collection[str]], Iterable[Receipt]],
    what: str,
    times: LeaseTimes,
    note: Callable[[str], None],
) -> Generator[Receipt]:
    """Yield a receipt of every work once it is done, here or by another run.

    Args:
        works: Their names.
        do: Does those that no other run holds, and yields receipts of all.
        storage: Where they are claimed and committed.
        find_done: Returns the works of the store that are done.
        receipts_of: Returns receipts of works that other runs did.
        what: What works are called in a sentence.
        times: How long a silence of another run is death.
        note: Gets a sentence of what is waited for.
    """
    left = works
    while left:
        held: dict[str, str] = {}
        with closing(do(left)) as receipts:
            for receipt in receipts:
                if receipt.facts.held_by:
                    held[receipt.unit_id] = receipt.facts.held_by
                else:
                    yield receipt
        if not held:
            return
        done = wait_until_free(storage, held, find_done, what=what, times=times, note=note)
        yield from receipts_of(done)
        left = held.keys() - set(done)
