"""Dealing: every unit goes out once, and files are read about as seldom as they can be."""

import heapq
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from engine_kit import lora, row
from hypothesis import given
from hypothesis import strategies as st

from pipelines.planning.plan_units import plan_units
from pipelines.planning.unit_runs import DealingOrder, UnitNeeds, UnitRun
from pipelines.stages.dealing import Dealer, PlanOrder


def needs(*files: str, attempt: int = 1) -> UnitNeeds:
    return UnitNeeds(attempt, frozenset(files))


def runs_of(units: Sequence[UnitNeeds]) -> list[UnitRun]:
    """Return the runs of a plan of one part: neighbours that need the same are one."""
    runs: list[UnitRun] = []
    for place, unit in enumerate(units):
        if runs and runs[-1].needs == unit:
            runs[-1] = replace(runs[-1], num_units=runs[-1].num_units + 1)
        else:
            order = DealingOrder(unit.attempt, "", "", "", 8, 8, "clora")
            runs.append(UnitRun(order=order, needs=unit, part=0, first=place, num_units=1))
    return runs


class Dealt:
    """A dealer whose units are known by their place in the one part."""

    def __init__(self, units: Sequence[UnitNeeds]) -> None:
        self._dealer = Dealer(runs_of(units))

    def deal(self, ticket: int, taker: str) -> int:
        part, place = self._dealer.deal(ticket, taker)
        assert part == 0
        return place


class Actor:
    """Holds the files used last and counts what it reads."""

    def __init__(self, name: str, max_files: int) -> None:
        self.name = name
        self.held: OrderedDict[str, None] = OrderedDict()
        self.num_loads = 0
        self._max_files = max_files

    def make(self, unit: UnitNeeds) -> None:
        for digest in sorted(unit.files):
            self.num_loads += digest not in self.held
            self.held[digest] = None
            self.held.move_to_end(digest)
            while len(self.held) > max(self._max_files, len(unit.files)):
                self.held.popitem(last=False)


def make_all(
    units: Sequence[UnitNeeds], actors: Sequence[Actor], chance: random.Random, *, deaths: int = 0
) -> list[int]:
    """Let actors of changing speed make all units; return those that were made, in order.

    An actor that dies comes back under its name, holding nothing, and its ticket is run again.
    """
    dealer, made = Dealt(units), list[int]()
    tickets = list(range(len(units)))
    dying = set(chance.sample(tickets, deaths))
    free = [(0.0, index) for index in range(len(actors))]
    while tickets:
        now, index = heapq.heappop(free)
        actor, ticket = actors[index], tickets.pop()
        number = dealer.deal(ticket, actor.name)
        actor.make(units[number])
        if ticket in dying:
            dying.remove(ticket)
            actor.held.clear()
            tickets.append(ticket)
        else:
            made.append(number)
        heapq.heappush(free, (now + chance.uniform(0.5, 2.0), index))
    return made


UNITS = st.lists(
    st.builds(UnitNeeds, st.integers(1, 3), st.frozensets(st.sampled_from("abcdefg"), max_size=3)),
    max_size=40,
).map(lambda units: sorted(units, key=lambda unit: (unit.attempt, sorted(unit.files))))


@given(units=UNITS, num_actors=st.integers(1, 5), seed=st.integers(0, 99), data=st.data())
def test_every_unit_is_made_once_whoever_dies(
    units: list[UnitNeeds], num_actors: int, seed: int, data: st.DataObject
):
    actors = [Actor(str(index), 4) for index in range(num_actors)]
    deaths = data.draw(st.integers(0, len(units)))
    made = make_all(units, actors, random.Random(seed), deaths=deaths)
    assert sorted(made) == list(range(len(units)))


@given(units=UNITS, num_actors=st.integers(1, 5))
def test_what_failed_before_waits_for_what_is_new(units: list[UnitNeeds], num_actors: int):
    dealer = Dealt(units)
    numbers = [dealer.deal(ticket, str(ticket % num_actors)) for ticket in range(len(units))]
    attempts = [units[number].attempt for number in numbers]
    assert attempts == sorted(attempts)


@given(units=UNITS)
def test_an_actor_alone_goes_through_the_plan_in_order(units: list[UnitNeeds]):
    assert make_all(units, [Actor("one", 4)], random.Random(0)) == list(range(len(units)))


def zipf_units(num_sets: int, num_units: int, chance: random.Random) -> list[UnitNeeds]:
    """Return units of sets without a common LoRA, sorted by set as a plan is.

    Between two sets lies a unit of both, as where rows are cut by count.
    """
    total = sum(1 / rank for rank in range(1, num_sets + 1))
    counts = [max(1, round(num_units / total / rank)) for rank in range(1, num_sets + 1)]
    chance.shuffle(counts)
    sets = [(f"{index}-one", f"{index}-two") for index in range(num_sets)]
    units = [needs(*sets[0])] * counts[0]
    for (before, own), count in zip(pairwise(sets), counts[1:], strict=True):
        units += [needs(*before, *own), *[needs(*own)] * (count - 1)]
    return units


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_actors", [1, 2, 4])
def test_popular_sets_are_read_by_few_even_if_actors_die(num_actors: int, seed: int):
    """At most a quarter above every LoRA once, and for a death what the actor held."""
    chance = random.Random(seed)
    units = zipf_units(50, 200, chance)
    actors = [Actor(str(index), 4) for index in range(num_actors)]
    deaths = seed % 4
    make_all(units, actors, chance, deaths=deaths)
    bound = len({digest for unit in units for digest in unit.files})
    num_loads = sum(actor.num_loads for actor in actors)
    assert bound <= num_loads <= 1.25 * bound + 4 * deaths


def test_a_stretch_is_cut_where_no_file_is_needed_on_both_sides():
    a, b = needs("m", "a"), needs("n", "b")
    dealer = Dealt([a, a, a, a, a, b, b, b])
    assert dealer.deal(0, "one") == 0
    assert dealer.deal(1, "two") == 5  # and not 4, the middle
    assert dealer.deal(2, "one") == 1
    assert dealer.deal(3, "two") == 6


def test_what_a_lost_actor_left_is_made_by_the_others():
    dealer = Dealt([needs("a")] * 6)
    assert dealer.deal(0, "lost") == 0
    rest = [dealer.deal(ticket, "other") for ticket in range(1, 6)]
    assert sorted(rest) == [1, 2, 3, 4, 5]
    with pytest.raises(IndexError, match="dealt out"):
        dealer.deal(6, "other")


def test_a_ticket_that_is_run_again_means_the_same_unit():
    dealer = Dealt([needs("a"), needs("b")])
    first = dealer.deal(7, "one")
    assert dealer.deal(7, "two") == first
    assert dealer.deal(8, "two") != first


def test_a_plan_knows_what_its_units_need():
    pair, other = (lora("cat"), lora("dog")), (lora("cat"), lora("fox"))
    manifest = [row(0, loras=pair), row(1, loras=other), row(2, loras=pair), row(3, loras=())]
    plan = plan_units(manifest, made=(), failed={}, rows_per_unit=4, attempts=3)
    told = list(plan.needs())
    members = [
        {one["digest"] for planned in unit["rows"] for one in planned["loras"]}
        | {planned["base_model_digest"] for planned in unit["rows"]}
        for unit in plan.units.to_pylist()
    ]
    assert [set(one.files) for one in told] == members
    assert [one.attempt for one in told] == [1] * plan.num_units


def test_one_actor_alone_is_dealt_the_units_in_their_order_which_needs_no_dealer():
    units = [needs("a"), needs("a"), needs("b"), needs("a", attempt=2), needs("c", attempt=2)]
    dealer, order = Dealer(runs_of(units)), PlanOrder(runs_of(units))
    dealt = [dealer.deal(ticket, "one") for ticket in range(len(units))]
    assert [order(ticket) for ticket in range(len(units))] == dealt
    assert dealt == [(0, place) for place in range(len(units))]
    with pytest.raises(IndexError):
        order(len(units))
