"""Dealing: every unit goes out once, and LoRAs are read about as seldom as they can be."""

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

from pipelines.dealing import GROUPS_LOOKED_AT, Dealer, UnitNeeds
from pipelines.plan_units import plan_units


def needs(*loras: str, attempt: int = 1, model: str = "m") -> UnitNeeds:
    return UnitNeeds(attempt, model, frozenset(loras))


class Actor:
    """Holds the LoRAs used last and counts what it reads."""

    def __init__(self, name: str, max_loras: int) -> None:
        self.name = name
        self.held: OrderedDict[str, None] = OrderedDict()
        self.num_loads = 0
        self.models = list[str]()
        self._max_loras = max_loras

    def make(self, unit: UnitNeeds) -> None:
        self.models.append(unit.base_model)
        for digest in sorted(unit.loras):
            self.num_loads += digest not in self.held
            self.held[digest] = None
            self.held.move_to_end(digest)
            while len(self.held) > max(self._max_loras, len(unit.loras)):
                self.held.popitem(last=False)


def make_all(
    units: Sequence[UnitNeeds], actors: Sequence[Actor], chance: random.Random, *, deaths: int = 0
) -> list[int]:
    """Let actors of changing speed make all units; return those that were made, in order.

    An actor that dies comes back under its name, holding nothing, and its ticket is run again.
    """
    dealer, made = Dealer(units), list[int]()
    tickets = list(range(len(units)))
    dying = set(chance.sample(tickets, deaths))
    free = [(0.0, index) for index in range(len(actors))]
    while tickets:
        now, index = heapq.heappop(free)
        actor, ticket = actors[index], tickets.pop()
        number = dealer.deal(ticket, actor.name, actor.held)
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
)


@given(units=UNITS, num_actors=st.integers(1, 5), seed=st.integers(0, 99), data=st.data())
def test_every_unit_is_made_once_whoever_dies(
    units: list[UnitNeeds], num_actors: int, seed: int, data: st.DataObject
):
    actors = [Actor(str(index), 4) for index in range(num_actors)]
    deaths = data.draw(st.integers(0, len(units)))
    made = make_all(units, actors, random.Random(seed), deaths=deaths)
    assert sorted(made) == list(range(len(units)))


@given(units=UNITS)
def test_what_failed_before_waits_for_what_is_new(units: list[UnitNeeds]):
    made = make_all(units, [Actor("one", 4)], random.Random(0))
    attempts = [units[number].attempt for number in made]
    assert attempts == sorted(attempts)


@given(units=UNITS)
def test_an_actor_alone_makes_all_units_of_a_set_one_after_another(units: list[UnitNeeds]):
    made = [units[number] for number in make_all(units, [Actor("one", 4)], random.Random(0))]
    num_turns = sum(one != other for one, other in pairwise(made))
    assert num_turns == max(0, len(set(units)) - 1)


def zipf_units(num_sets: int, num_units: int, chance: random.Random) -> list[UnitNeeds]:
    """Return units of sets without a common LoRA, sorted by set as a plan is."""
    total = sum(1 / rank for rank in range(1, num_sets + 1))
    counts = [max(1, round(num_units / total / rank)) for rank in range(1, num_sets + 1)]
    chance.shuffle(counts)
    return [
        needs(f"{index}-one", f"{index}-two")
        for index, count in enumerate(counts)
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_actors", [1, 4, 8])
def test_popular_sets_are_read_by_few_even_if_actors_die(num_actors: int, seed: int):
    """At most a quarter above every LoRA once, and what a death costs: what the actor held."""
    chance = random.Random(seed)
    units = zipf_units(50, 200, chance)
    actors = [Actor(str(index), 4) for index in range(num_actors)]
    deaths = seed % 4
    make_all(units, actors, chance, deaths=deaths)
    bound = len({digest for unit in units for digest in unit.loras})
    num_loads = sum(actor.num_loads for actor in actors)
    splits = 2 * num_actors  # near the end the last sets are shared out
    assert bound <= num_loads <= max(1.25 * bound, bound + 2 * splits) + 4 * deaths


@given(units=UNITS, num_actors=st.integers(1, 4), seed=st.integers(0, 99))
def test_no_actor_comes_back_to_a_base_model_that_it_left(
    units: list[UnitNeeds], num_actors: int, seed: int
):
    first_tries = [replace(unit, attempt=1) for unit in units]
    actors = [Actor(str(index), 4) for index in range(num_actors)]
    make_all(first_tries, actors, random.Random(seed))
    for actor in actors:
        changes = [one for one, other in pairwise([*actor.models, ""]) if one != other]
        assert len(changes) == len(set(changes))


def test_an_actor_takes_what_it_holds_then_what_nobody_is_at_then_the_largest_rest():
    a, b, c = needs("a"), needs("b"), needs("c")
    dealer = Dealer([a, a, a, b, b, c])
    assert dealer.deal(0, "one", ()) == 0
    assert dealer.deal(1, "two", ()) == 3  # not a, which the first is at
    assert dealer.deal(2, "two", ("b",)) == 4
    assert dealer.deal(3, "two", ("b",)) == 5
    assert dealer.deal(4, "two", ("c",)) == 1  # nothing else is left
    assert dealer.deal(5, "one", ("a",)) == 2
    with pytest.raises(IndexError, match="dealt out"):
        dealer.deal(6, "one", ("a",))


def test_a_set_with_a_lora_that_is_held_comes_before_one_without():
    dealer = Dealer([needs("a", "b"), needs("c", "d"), needs("b", "e")])
    assert dealer.deal(0, "one", ()) == 0
    assert dealer.deal(1, "one", ("a", "b")) == 2


def test_a_ticket_that_is_run_again_means_the_same_unit():
    dealer = Dealer([needs("a"), needs("b")])
    first = dealer.deal(7, "one", ())
    assert dealer.deal(7, "two", ("b",)) == first
    assert dealer.deal(8, "two", ()) != first


def test_an_actor_goes_on_with_its_set_however_many_others_come_before_it():
    crowd = [needs(str(index)) for index in range(2 * GROUPS_LOOKED_AT)]
    last = needs("last")
    dealer = Dealer([last, *crowd, last])
    assert dealer.deal(0, "one", ()) == 0
    assert dealer.deal(1, "one", ("last",)) == len(crowd) + 1


def test_a_plan_knows_what_its_units_need():
    pair, other = (lora("cat"), lora("dog")), (lora("cat"), lora("fox"))
    manifest = [row(0, loras=pair), row(1, loras=other), row(2, loras=pair), row(3, loras=())]
    plan = plan_units(manifest, made=(), failed={}, rows_per_unit=4, max_attempts=3)
    told = list(plan.needs())
    members = [
        {one["digest"] for planned in unit["rows"] for one in planned["loras"]}
        for unit in plan.units.to_pylist()
    ]
    assert [set(one.loras) for one in told] == members
    models = [
        {planned["base_model_digest"] for planned in unit["rows"]}
        for unit in plan.units.to_pylist()
    ]
    assert [{one.base_model} for one in told] == models
    assert [one.attempt for one in told] == [1] * plan.num_units
