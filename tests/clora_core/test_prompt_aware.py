"""W-Switch and W-Composite against loops over transformers' encoder and peft's adapters."""

from dataclasses import replace
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.importance import loop_importance
from oracles.loops import loop_sample, loop_turns
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.diffusion.prompt_similarity import concept_importance, without_words
from clora_core.lora.bank import LoraBank
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.methods.w_switch import active_concept, num_last_steps, turn_lengths
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.sampling.lanes import lane_batch
from clora_core.sampling.row_lanes import row_lanes
from clora_core.sampling.sampler import sample

PROMPTS = (
    "a cat and a dog",
    "two cats, a dog, on a beach in the sun",
    "Dog, cat",  # less than five characters are left of either
)


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def core_xl(tiny_sdxl_dir):
    return Core(tiny_sdxl_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    names = ("peft_attention", "peft_text", "kohya_text", "style")
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in names]):
        yield pipeline


@pytest.fixture(scope="module")
def pipeline_xl(tiny_sdxl_dir):
    return load_pipeline(tiny_sdxl_dir, dtype=torch.float64)


@pytest.fixture
def row(tiny_loras):
    """Two concepts, one of them with text-encoder weights, and a style."""
    row = two_concept_row(tiny_loras, width=64, height=64, sampler=tiny_sampler(num_steps=3))
    style = lora_use(tiny_loras["style"], kind="style", weight=0.6)
    return replace(row, loras=(row.loras[0], style, row.loras[1]), negative_prompt="a bird")


# --------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("how", ["ablated", "triggers"])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("triggers", [("sks", "zwx"), ("sks", None), (None, None)])
def test_weights_are_those_of_texts_encoded_one_by_one(core, pipeline, row, how, prompt, triggers):
    concepts = [replace(c, trigger=t) for c, t in zip(row.concepts, triggers, strict=True)]
    found = concept_importance(core.model, mark_prompt(prompt, concepts, range(2)), how)
    assert found == pytest.approx(loop_importance(pipeline, prompt, concepts, how), rel=1e-9)
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize("how", ["ablated", "triggers"])
def test_weights_of_sdxl_are_those_of_both_towers(core_xl, pipeline_xl, row, how):
    marked = mark_prompt(row.prompt, row.concepts, range(2))
    found = concept_importance(core_xl.model, marked, how)
    expected = loop_importance(pipeline_xl, row.prompt, row.concepts, how)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("prompt", "concept", "left"),
    [
        ("a cat and a dog", 0, "a and a zwx dog"),
        ("a cat and a dog", 1, "a sks cat and a"),
        ("photo, cat, dogs, beach", 1, "photo, sks cat, beach"),
        ("cat, a dog", 0, "a zwx dog"),
        ("a dog, cat", 0, "a zwx dog"),
    ],
)
def test_a_concepts_words_are_its_trigger_and_subject(row, prompt, concept, left):
    assert without_words(mark_prompt(prompt, row.concepts, range(2)), concept) == left


def test_of_two_concepts_on_one_noun_each_has_its_own(row):
    cat = row.concepts[0]
    cats = [cat, replace(cat, trigger="blackcat"), replace(cat, trigger="old cat")]
    marked = mark_prompt("a cat, a cat, a cat", cats, range(3))
    assert [without_words(marked, concept) for concept in range(3)] == [
        "a , a blackcat cat, a old cat",
        "a sks cat, a , a old cat",
        "a sks cat, a blackcat cat, a",
    ]


def test_a_row_is_weighed_without_any_lora(core, row):
    lanes = row_lanes(core.model, replace(row, method="w-switch"))
    other = tuple(replace(lora, weight=0.1) for lora in row.loras)
    again = row_lanes(core.model, replace(row, method="w-switch", loras=other))
    assert lanes.importance == again.importance
    assert row_lanes(core.model, replace(row, method="switch")).importance == ()


# ----------------------------------------------------------------------------------- the turns

WEIGHTS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5)


def turns(weights, config):
    mix = Mix(("concept",) * len(weights), config, importance=tuple(weights))
    return [active_concept(step, mix) for step in range(config.num_steps)]


@given(
    weights=WEIGHTS,
    every=st.integers(1, 7),
    num_steps=st.integers(1, 120),
    as_published=st.booleans(),
)
def test_turns_are_those_of_the_released_schedule(weights, every, num_steps, as_published):
    config = SamplerConfig(
        num_steps=num_steps,
        guide_until_step=0,
        switch_every=every,
        switch_as_published=as_published,
    )
    assert turns(weights, config) == loop_turns(weights, config)


@given(weights=WEIGHTS, every=st.integers(1, 7))
def test_every_turn_has_its_length_and_the_last_steps_are_the_first_loras(weights, every):
    config = SamplerConfig(num_steps=100, guide_until_step=0, switch_every=every)
    found = turns(weights, config)
    assert found[-5:] == [0] * 5
    lengths = turn_lengths(weights, every)
    assert max(lengths) == every
    assert min(lengths) >= 1
    assert lengths[weights.index(max(weights))] == every
    runs = [(concept, len(list(run))) for concept, run in groupby(found[:-5])]
    if len(weights) > 1:
        expected = [(at % len(weights), lengths[at % len(weights)]) for at in range(len(runs))]
        assert runs[:-1] == expected[:-1]
        assert runs[-1][1] <= expected[-1][1]  # the last turn may be cut


@given(
    kinds=st.lists(st.sampled_from(["concept", "style"]), min_size=1).filter(
        lambda kinds: "concept" in kinds
    ),
    step=st.integers(0, 49),
)
def test_every_step_has_one_concept_and_all_styles(kinds, step):
    num = kinds.count("concept")
    mix = Mix(kinds, SamplerConfig(), importance=tuple(map(float, range(1, num + 1))))
    method = METHODS["w-switch"]
    [shares] = method.shares_at(step, method.variants(mix), mix)
    by_kind = [
        [share for share, kind in zip(shares, kinds, strict=True) if kind == wanted]
        for wanted in ("concept", "style")
    ]
    assert sorted(by_kind[0]) == [0.0] * (num - 1) + [1.0]
    assert by_kind[1] == [1.0] * (len(kinds) - num)


def test_one_step_of_twenty_is_among_the_last():
    assert [num_last_steps(n) for n in (1, 20, 21, 30, 50, 100)] == [1, 1, 2, 2, 3, 5]


# ---------------------------------------------------------------------------------- the samplers


@pytest.mark.parametrize("change", [{}, {"text_encoder_lora": False}, {"guidance_scale": 1.0}])
@pytest.mark.parametrize("method", ["w-switch", "w-composite"])
def test_the_methods_are_their_loops(core, pipeline, row, method, change):
    row = replace(row, method=method, sampler=tiny_sampler(num_steps=3, switch_every=1, **change))
    found, trace = core.sample(row)
    assert relative(found, loop_sample(pipeline, row)) < 1e-12
    assert (trace.losses, trace.coverage, trace.overlap) == ([], [], [])


@pytest.mark.parametrize("as_published", [True, False])
def test_w_switch_takes_turns_as_its_loop_does(core, pipeline, row, as_published):
    sampler = tiny_sampler(num_steps=7, switch_every=2, switch_as_published=as_published)
    cat, style, dog = row.loras
    row = replace(row, method="w-switch", sampler=sampler)
    row = replace(row, loras=(cat, style, replace(dog, trigger=None)))
    assert relative(core.sample(row)[0], loop_sample(pipeline, row)) < 1e-12


@pytest.mark.parametrize("method", ["w-switch", "w-composite"])
def test_the_methods_on_sdxl_are_their_loops(core_xl, pipeline_xl, tiny_sdxl_loras, method):
    row = two_concept_row(
        tiny_sdxl_loras,
        width=128,
        height=128,
        method=method,
        negative_prompt="a bird",
        sampler=tiny_sampler(num_steps=2, switch_every=1),
    )
    assert relative(core_xl.sample(row)[0], loop_sample(pipeline_xl, row)) < 1e-6


def with_importance(core, row, *importance):
    """A row's latents where the text encoder is not asked."""
    packed = {lora.digest: core.factors(lora.uri) for lora in row.loras}
    lanes = replace(row_lanes(core.model, row), importance=importance)
    towers = [LoraBank(t.encoder, list(packed.values()), t.name) for t in core.model.towers]
    batch = lane_batch(core.model, [lanes], list(packed), towers)
    bank = LoraBank(core.model.unet, list(packed.values()), "unet")
    return sample(core.model, batch, bank)[0]


def test_w_composite_with_equal_weights_is_composite(core, row):
    expected, _ = core.sample(replace(row, method="composite"))
    found = with_importance(core, replace(row, method="w-composite"), 0.5, 0.5)
    assert relative(found, expected) < 1e-13
    other = with_importance(core, replace(row, method="w-composite"), 0.6, 0.4)
    assert relative(other, expected) > 1e-4


def test_w_composite_with_one_weight_is_that_concept_with_everyones_text(core, row):
    both = with_importance(core, replace(row, method="w-composite"), 1.0, 0.0)
    switch = tiny_sampler(num_steps=3, switch_every=3)
    alone, _ = core.sample(replace(row, method="switch", sampler=switch))
    assert relative(both, alone) < 1e-13


@pytest.mark.parametrize("method", ["w-switch", "w-composite"])
def test_rows_of_other_weights_go_together(core, row, method):
    sampler = tiny_sampler(num_steps=4, switch_every=2)
    row = replace(row, method=method, sampler=sampler)
    rows = [row, replace(row, prompt="a dog beside two cats in the snow", seed=3)]
    together, _ = core.sample(rows)
    for index, alone in enumerate(rows):
        assert relative(together[index], core.sample(alone)[0][0]) < 1e-12
