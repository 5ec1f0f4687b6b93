"""Late binding: which unit an actor gets when it is free, so that files are read seldom.

Ray gives work to whichever actor is free and cannot be told what suits it. So Ray is given tickets,
and an actor that begins a ticket asks here for a unit. Sorted units alone are not enough: all
actors then work on the same popular LoRA set, and each reads it.

So the plan, in which what needs the same files lies together, is shared out as in work stealing:
an actor goes through a stretch of its own, and when that is done it takes the further half of the
longest one, cut where the fewest files are needed on both sides. A popular set is spread over
actors only if there is nothing else left.

A ticket is bound to its unit for good. A ticket that Ray runs again, because its actor died, means
the same unit, so there is nothing to lease and nothing to time out; what was left of a dead actor's
stretch is taken by others.

Pure but for what it remembers; ``graph`` puts it into an actor beside the driver, whose fate it
shares.
"""

from collections.abc import Iterable
from itertools import groupby

from pipelines.planning.plan import UnitNeeds


class Dealer:
    """Deals units out, each once.

    Args:
        units: Needs of every unit, in the plan's order: by attempt, then by what they need.
    """

    def __init__(self, units: Iterable[UnitNeeds]) -> None:
        self._units = list(units)
        self._later = self._spans()
        self._stretches: dict[str, range] = {}
        self._bound: dict[int, int] = {}

    def deal(self, ticket: int, taker: str) -> int:
        """Return the number of the unit that ``taker`` makes for ``ticket``.

        Args:
            ticket: Any number, as many different ones as there are units.
            taker: Names the actor.

        Raises:
            IndexError: There are more tickets than units.
        """
        if ticket not in self._bound:
            stretch = self._stretches.get(taker) or self._further()
            self._bound[ticket], self._stretches[taker] = stretch[0], stretch[1:]
        return self._bound[ticket]

    def _spans(self) -> list[range]:
        """Return the places of each attempt's units, the first to be dealt last."""
        spans: list[range] = []
        for _, members in groupby(self._units, key=lambda unit: unit.attempt):
            start = spans[-1].stop if spans else 0
            spans.append(range(start, start + len(list(members))))
        return spans[::-1]

    def _further(self) -> range:
        """Return the further part of the longest stretch, or the next attempt's units."""
        owner = max(self._stretches, key=lambda name: len(self._stretches[name]), default=None)
        if owner is None or not self._stretches[owner]:
            if not self._later:
                raise IndexError("every unit is dealt out")
            return self._later.pop()
        longest = self._stretches[owner]
        cut = self._cut(longest)
        self._stretches[owner] = longest[:cut]
        return longest[cut:]

    def _cut(self, stretch: range) -> int:
        """Return where to cut: in its middle half, where the fewest files are read twice."""
        middle, quarter = len(stretch) / 2, len(stretch) // 4

        def cost(cut: int) -> tuple[int, float]:
            unit = self._units[stretch[cut]]
            # What comes before the first unit was dealt to the owner and may be under way.
            before = self._units[stretch[cut] - 1] if stretch[cut] else unit
            return len(unit.files & before.files), abs(cut - middle)

        return min(range(quarter, max(len(stretch) - quarter, quarter + 1)), key=cost)
