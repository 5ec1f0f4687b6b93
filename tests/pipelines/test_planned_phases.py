"""Rows that share the base model's first phase are planned side by side."""

import itertools
import random
from collections import Counter, defaultdict

from engine_kit import SAMPLER, lora, row
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.first_phase import first_phase
from clora_core.recipe.row import Region, Row
from pipelines.planning.plan import Plan
from pipelines.planning.plan_units import plan_units

BASE_MASKS = SamplerConfig(gate_base_steps=10, gate_mask_source="base")
CATS = [lora(name, subject="cat") for name in ("tabby", "tom", "kitten")]
DOGS = [lora(name, subject="dog") for name in ("husky", "pug")]
LEFT = Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace")
PLACED = [lora(one.name, subject=one.subject, region=LEFT) for one in (CATS[0], DOGS[0])]

phased_rows = st.builds(
    lambda seed, cat, dog, prompt, negative, method: row(
        seed,
        loras=(cat, dog),
        prompt=prompt,
        negative_prompt=negative,
        method=method,
        sampler=BASE_MASKS,
    ),
    st.integers(0, 3),
    st.sampled_from([*CATS, PLACED[0]]),
    st.sampled_from([*DOGS, PLACED[1]]),
    st.sampled_from(["a cat and a dog", "a dog and a cat", "a cat, a dog, a cat", "a tree"]),
    st.sampled_from(["", "a bird"]),
    st.sampled_from(["freefuse", "clora-gated", "clora"]),
)


def units_of(manifest: list[Row], rows_per_unit: int) -> list[list[Row]]:
    return list(planned(manifest, rows_per_unit).members_by_unit())


def planned(manifest: list[Row], rows_per_unit: int) -> Plan:
    return plan_units(manifest, made=(), failed={}, rows_per_unit=rows_per_unit, attempts=3)


@given(st.lists(phased_rows, max_size=60), st.integers(1, 7))
def test_rows_of_one_phase_stand_together_and_no_border_divides_two_phases(
    manifest: list[Row], rows_per_unit: int
):
    phases_made = 0
    units_by_method: Counter[str] = Counter()
    distinct: dict[str, set[object]] = defaultdict(set)
    for unit in units_of(manifest, rows_per_unit):
        units_by_method[unit[0].method] += 1
        runs = [phase for phase, _ in itertools.groupby(first_phase(one) for one in unit)]
        assert len(runs) == len(set(runs))
        phases_made += len(runs)
        distinct[unit[0].method] |= set(runs)
    # A border that falls between two phases divides none, and any other divides one.
    most = sum(len(found) + units_by_method[name] - 1 for name, found in distinct.items())
    assert phases_made <= most


@given(st.lists(phased_rows, max_size=60), st.integers(1, 7))
def test_within_a_phase_rows_stand_by_lora_set(manifest: list[Row], rows_per_unit: int):
    for unit in units_of(manifest, rows_per_unit):
        for _, members in itertools.groupby(unit, key=first_phase):
            sets = [sorted(lora.digest for lora in one.loras) for one in members]
            assert sets == sorted(sets)


@given(st.lists(phased_rows, max_size=30), st.randoms(use_true_random=False))
def test_the_manifests_order_changes_no_order_within_units(
    manifest: list[Row], shuffler: random.Random
):
    shuffled = list(manifest)
    shuffler.shuffle(shuffled)
    one, other = (
        [[member.key for member in unit] for unit in units_of(rows, 4)]
        for rows in (manifest, shuffled)
    )
    assert one == other


def test_what_differs_in_the_loras_alone_is_one_unit_whatever_the_seeds():
    manifest = [
        row(seed, loras=(cat, DOGS[0]), method="freefuse", sampler=SAMPLER)
        for cat in CATS
        for seed in range(5)
    ]
    for unit in units_of(manifest, 3):
        assert len({one.seed for one in unit}) == 1
        assert len({one.loras for one in unit}) == 3


def test_methods_without_a_first_phase_stand_by_lora_set_alone():
    manifest = [
        row(seed, loras=(cat, DOGS[0]), method=method, sampler=SAMPLER)
        for cat in CATS
        for seed in range(3)
        for method in ("clora", "merge", "clora-gated")
    ]
    assert all(len({one.loras for one in unit}) == 1 for unit in units_of(manifest, 3))
