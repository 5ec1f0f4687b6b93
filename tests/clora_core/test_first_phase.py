"""Which rows share the base model's first phase, against the sampler that shares it."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.core_runs import Core
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.recipe.cost import first_phase_evaluations, unet_evaluations
from clora_core.recipe.first_phase import first_phase, has_first_phase
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Region, Row
from clora_core.sampling.first_phase import _seen
from clora_core.sampling.row_lanes import row_lanes

QUICK = {"num_steps": 3, "guide_until_step": 1, "freefuse_steps": 2}
BASE_MASKS = {"gate_base_steps": 2, "gate_mask_source": "base"}
LEFT = Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace")


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture
def row(tiny_loras):
    return two_concept_row(
        tiny_loras, width=128, height=64, method="freefuse", sampler=tiny_sampler(**QUICK)
    )


def other_loras(row: Row, tiny_loras) -> Row:
    """Return the row with other LoRAs for the same subjects, and a style."""
    cat = lora_use(tiny_loras["kohya_text"], subject="cat", trigger="qqq", weight=0.5)
    style = lora_use(tiny_loras["style"], kind="style")
    return replace(row, loras=(cat, style, row.loras[1]))


def placed(row: Row) -> Row:
    return replace(row, loras=tuple(replace(lora, region=LEFT) for lora in row.loras))


def test_rows_that_differ_in_their_loras_alone_have_one_phase(row, tiny_loras):
    assert first_phase(row) == first_phase(other_loras(row, tiny_loras)) is not None
    assert first_phase(row) == first_phase(replace(row, prompt="a sks cat and a zwx dog"))


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"negative_prompt": "a bird"}, {"prompt": "a dog and a cat"}],
)
def test_what_the_base_model_sees_is_another_phase(row, change):
    assert first_phase(row) != first_phase(replace(row, **change)) is not None


def test_rows_without_a_phase_of_their_own(row):
    assert first_phase(placed(row)) is None
    assert first_phase(replace(row, prompt="a tree")) is None
    assert all(
        first_phase(replace(row, method=name)) is None for name in METHODS if name != "freefuse"
    )


def test_gated_methods_have_a_phase_where_the_settings_give_them_base_steps():
    with_phase = {name for name in METHODS if has_first_phase(name, tiny_sampler(**BASE_MASKS))}
    assert with_phase == {"freefuse", "clora-gated", "clora-gated-no-update"}


prompts = st.lists(
    st.sampled_from(["cat", "dog", "cats", "sks cat", "and", "a", "the cat's", "zwx dog"]),
    max_size=6,
).map(lambda words: " ".join(["a cat, a dog", *words]))


@given(st.tuples(prompts, prompts), st.tuples(st.booleans(), st.booleans()))
def test_phases_are_equal_where_the_sampler_shares_them(core, prompts, swapped):
    cat = Lora(name="c", uri="", digest="1", kind="concept", subject="cat", trigger="sks")
    dog = Lora(name="d", uri="", digest="2", kind="concept", subject="dog", trigger="zwx")
    rows = [
        Row(
            prompt=prompt,
            loras=(dog, cat) if swap else (cat, dog),
            seed=1,
            method="freefuse",
            sampler=tiny_sampler(),
            width=128,
            height=64,
        )
        for prompt, swap in zip(prompts, swapped, strict=True)
    ]
    one, other = (_seen(row_lanes(core.model, replace(row, method="base"))) for row in rows)
    assert (first_phase(rows[0]) == first_phase(rows[1])) == (one == other)


@pytest.mark.parametrize("changes", [{"method": "freefuse"}, {"method": "clora-gated"}])
@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 1.0}, {"attention_half": "both"}])
def test_what_goes_through_the_unet_is_what_is_counted(core, row, tiny_loras, changes, settings):
    """Three rows of two phases in one batch, and a batch of a row that its regions place."""
    row = replace(row, sampler=tiny_sampler(**QUICK, **BASE_MASKS, **settings), **changes)
    rows = [row, other_loras(row, tiny_loras), replace(row, seed=8)]
    core.model.map_layers(row.sampler.map_size)  # found by a pass of its own, the first time
    seen: list[int] = []
    handle = core.model.unet.register_forward_pre_hook(
        lambda _unet, args: seen.append(len(args[0]))
    )
    try:
        core.sample(rows)
        core.sample(placed(row))
    finally:
        handle.remove()
    counts = Counter(map(first_phase, rows))
    saved = sum(count - 1 for count in counts.values())
    assert saved == 1
    each = unet_evaluations(row.method, 2, row.sampler)
    alone = unet_evaluations(row.method, 2, row.sampler, is_placed=True)
    phase = first_phase_evaluations(row.method, 2, row.sampler)
    assert sum(seen) == 3 * each - saved * phase + alone
