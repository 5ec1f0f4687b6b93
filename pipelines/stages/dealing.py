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

Pure but for what it remembers; the ``board`` beside the driver has one for each phase. One actor
alone would get the units in their order, so where it has one phase to make nobody is asked.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, groupby

from pipelines.planning.unit_runs import UnitRun


class PlanOrder:
    """Where each unit is, counted in the order of the runs: what one actor alone is dealt.

    Args:
        runs: All units, in the plan's order: by attempt, then by what they need.
    """

    def __init__(self, runs: Iterable[UnitRun]) -> None:
        self.runs = list(runs)
        self.starts = [0, *accumulate(run.num_units for run in self.runs)]

    def __call__(self, unit: int) -> tuple[int, int]:
        """Return a unit's part of the plan and its place there.

        Raises:
            IndexError: There are fewer units.
        """
        number = self.run_of(unit)
        run = self.runs[number]
        return run.part, run.first + unit - self.starts[number]

    def run_of(self, unit: int) -> int:
        """Return the number of the run that a unit is of."""
        return bisect_right(self.starts, unit) - 1


def beginning_with(base_model_digest: str | None, runs: Iterable[UnitRun]) -> list[UnitRun]:
    """Return the runs in their order, but those of one base model first within their attempt."""
    return sorted(
        runs, key=lambda run: (run.needs.attempt, run.order.base_model_digest != base_model_digest)
    )


class Dealer:
    """Deals units out, each once.

    Args:
        runs: All units, in the plan's order: by attempt, then by what they need.
    """

    def __init__(self, runs: Iterable[UnitRun]) -> None:
        self._order = PlanOrder(runs)
        self._later = self._spans()
        self._stretches: dict[str, range] = {}
        self._bound: dict[int, int] = {}

    def deal(self, ticket: int, taker: str) -> tuple[int, int]:
        """Return the unit that ``taker`` makes for ``ticket``: its part of the plan and its place.

        Args:
            ticket: Any number, as many different ones as there are units.
            taker: Names the actor.

        Raises:
            IndexError: There are more tickets than units.
        """
        if ticket not in self._bound:
            stretch = self._stretches.get(taker) or self._further()
            self._bound[ticket], self._stretches[taker] = stretch[0], stretch[1:]
        return self._order(self._bound[ticket])

    @property
    def last_model(self) -> str | None:
        """The base model of the unit that was dealt last; None before the first."""
        if not self._bound:
            return None
        last = next(reversed(self._bound.values()))
        return self._order.runs[self._order.run_of(last)].order.base_model_digest

    def _spans(self) -> list[range]:
        """Return the units of each attempt, the first to be dealt last."""
        spans: list[range] = []
        for _, members in groupby(self._order.runs, key=lambda run: run.needs.attempt):
            start = spans[-1].stop if spans else 0
            spans.append(range(start, start + sum(run.num_units for run in members)))
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
        """Return where to cut: in its middle half, where the fewest files are read twice.

        Within a run every cut divides the same files, so only the one nearest to the middle counts.
        """
        quarter = len(stretch) // 4
        first = stretch.start + quarter
        last = max(stretch.stop - quarter, first + 1) - 1
        middle = stretch.start + len(stretch) / 2
        candidates: set[int] = set()
        for number in range(self._order.run_of(first), self._order.run_of(last) + 1):
            start, end = self._order.starts[number : number + 2]
            nearest = (int(middle), int(middle) + 1, start + 1, end - 1)
            candidates |= {start, *(place for place in nearest if start < place < end)}

        def cost(unit: int) -> tuple[int, float, int]:
            # What comes before the first unit was dealt to the owner and may be under way.
            files = self._files(unit)
            before = self._files(unit - 1) if unit else files
            return len(files & before), abs(unit - middle), unit

        return min((unit for unit in candidates if first <= unit <= last), key=cost) - stretch.start

    def _files(self, unit: int) -> frozenset[str]:
        return self._order.runs[self._order.run_of(unit)].needs.files
