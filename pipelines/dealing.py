"""Late binding: which unit an actor gets when it is free, so that files are read seldom.

Ray gives work to whichever actor is free and cannot be told what suits it. So Ray is given tickets,
and an actor that begins a ticket asks here for a unit, saying which LoRAs it holds. Sorted units
alone are not enough: all actors then work on the same popular set, and each reads it. An actor
leaves its base model only when no unit of it is left.

A ticket is bound to its unit for good. A ticket that Ray runs again, because its actor died, means
the same unit, so there is nothing to lease and nothing to time out.

Pure but for what it remembers; ``graph`` puts it into an actor beside the driver, whose fate it
shares.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

__all__ = ["Dealer", "UnitNeeds"]

GROUPS_LOOKED_AT = 256
"""Of those with units left, in the plan's order, which puts LoRA sets with a common LoRA together;
a million sets must not make a choice slow."""


@dataclass(frozen=True)
class UnitNeeds:
    """What making a unit takes.

    Attributes:
        attempt: Of its rows, from 1. What failed before waits for what is new.
        base_model: Digest of the base model that makes it.
        loras: Digests of all its LoRAs.
    """

    attempt: int
    base_model: str
    loras: frozenset[str]


class Dealer:
    """Deals units out, each once.

    Args:
        units: Needs of every unit, in the plan's order.
    """

    def __init__(self, units: Iterable[UnitNeeds]) -> None:
        self._left: OrderedDict[UnitNeeds, deque[int]] = OrderedDict()
        for number, needs in enumerate(units):
            self._left.setdefault(needs, deque()).append(number)
        self._bound: dict[int, int] = {}
        self._at: dict[str, UnitNeeds] = {}
        self._takers: Counter[UnitNeeds] = Counter()

    def deal(self, ticket: int, taker: str, held: Collection[str]) -> int:
        """Return the number of the unit that ``taker`` makes for ``ticket``.

        Args:
            ticket: Any number, as many different ones as there are units.
            taker: Names the actor.
            held: Digests of the LoRAs that it holds.

        Raises:
            IndexError: There are more tickets than units.
        """
        if ticket in self._bound:
            return self._bound[ticket]
        needs = self._best(taker, frozenset(held))
        units = self._left[needs]
        self._bound[ticket] = number = units.popleft()
        if not units:
            del self._left[needs]
        before = self._at.get(taker)
        if before is not None:
            self._takers[before] -= 1
        self._at[taker] = needs
        self._takers[needs] += 1
        return number

    def _best(self, taker: str, held: frozenset[str]) -> UnitNeeds:
        """Return what to take from: what is held, else what nobody is at, else the largest rest."""
        own = self._at.get(taker)

        def cost(needs: UnitNeeds) -> tuple[int, bool, int, int]:
            is_other_model = own is not None and needs.base_model != own.base_model
            num_missing = len(needs.loras - held)
            if not num_missing:
                return (needs.attempt, is_other_model, 0, 0)
            if self._takers[needs] > (needs == own):
                return (needs.attempt, is_other_model, 2, -len(self._left[needs]))
            return (needs.attempt, is_other_model, 1, num_missing)

        looked_at = list(islice(self._left, GROUPS_LOOKED_AT))
        if own in self._left:
            looked_at.append(own)
        if not looked_at:
            raise IndexError("every unit is dealt out")
        return min(looked_at, key=cost)
