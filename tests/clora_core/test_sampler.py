"""The fast sampler against the sequential reference, and every shortcut against the long way."""

from dataclasses import replace

import pytest
import torch
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row, with_adapter

from clora_core.diffusion.attention import MapCapture
from clora_core.recipe.cost import unet_evaluations
from clora_core.recipe.methods import METHODS
from clora_core.sampling.sampler import initial_noise

HELD = ("peft_attention", "peft_text", "kohya_text", "kohya_locon", "style")


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    """In float64, with the LoRAs kept loaded, which saves half of the time."""
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in HELD]):
        yield pipeline


QUICK = {"num_steps": 2, "guide_until_step": 1, "num_refine_updates": 1}
"""One step with two updates, one without."""


@pytest.fixture
def row(tiny_loras):
    """Maps of 8x8."""
    return two_concept_row(tiny_loras, width=128, height=128, sampler=tiny_sampler(**QUICK))


@pytest.fixture
def three(row, tiny_loras):
    """Three concepts, one of them with convolutions, one with a multi-piece trigger."""
    bird = lora_use(tiny_loras["kohya_locon"], subject="bird", trigger="plushie", weight=0.7)
    return replace(row, prompt="a cat, a dog and a bird", loras=(*row.loras, bird))


@pytest.fixture
def style(tiny_loras):
    return lora_use(tiny_loras["style"], kind="style", weight=0.6)


@pytest.fixture
def style_with_text(tiny_loras):
    return lora_use(tiny_loras["kohya_text"], kind="style", weight=0.5)


def assert_equal_to_the_reference(core, pipeline, row, *, limit=1e-12, loss_limit=1e-10):
    expected = sequential_sample(pipeline, row)
    found, trace = core.sample(row, keep_maps=True)
    assert relative(found, expected.latents) < limit
    assert [float(loss) for loss in trace.losses] == pytest.approx(expected.losses, rel=loss_limit)
    masked = expected.masks[row.sampler.mask_from_step :]
    assert len(trace.masks) in (0, len(masked))
    for ours, theirs in zip(trace.masks, masked, strict=False):
        assert torch.equal(ours[0], theirs)
    return expected, trace


def test_two_concepts(core, pipeline, row):
    """On a refined, an updated and a free step."""
    sampler = tiny_sampler(num_steps=3, guide_until_step=2, num_refine_updates=2)
    _, trace = assert_equal_to_the_reference(core, pipeline, replace(row, sampler=sampler))
    assert len(trace.losses) == 3 + 1
    assert len(trace.masks) == 3


def test_three_concepts(core, pipeline, three):
    assert_equal_to_the_reference(core, pipeline, three)


def test_one_concept_has_no_loss_but_a_mask(core, pipeline, row):
    _, trace = assert_equal_to_the_reference(core, pipeline, replace(row, loras=row.loras[1:]))
    assert trace.losses == []
    assert len(trace.masks) == 2


def test_twenty_refinements_as_published(core, pipeline, row):
    sampler = tiny_sampler(
        num_steps=3, guide_until_step=2, refine_steps=(0,), num_refine_updates=20
    )
    row = replace(row, width=64, height=64, sampler=sampler)
    expected, _ = assert_equal_to_the_reference(core, pipeline, row)
    assert len(expected.losses) == 2 + 20


def test_a_style_acts_in_every_variant(core, pipeline, row, style):
    assert_equal_to_the_reference(core, pipeline, replace(row, loras=(*row.loras, style)))


def test_several_styles_in_any_place_of_the_row(core, pipeline, row, style, style_with_text):
    loras = (style, row.loras[0], style_with_text, row.loras[1])
    assert_equal_to_the_reference(core, pipeline, replace(row, loras=loras))


def test_concepts_with_text_encoder_weights(core, pipeline, row, tiny_loras):
    cat = lora_use(tiny_loras["kohya_text"], subject="cat", trigger="sks", weight=0.8)
    assert_equal_to_the_reference(core, pipeline, replace(row, loras=(cat, row.loras[1])))


def test_without_text_encoder_weights_of_concepts_styles_keep_theirs(
    core, pipeline, row, style_with_text
):
    sampler = tiny_sampler(**QUICK, text_encoder_lora=False)
    row = replace(row, loras=(*row.loras, style_with_text), sampler=sampler)
    assert_equal_to_the_reference(core, pipeline, row)


@pytest.mark.parametrize(
    "change",
    [
        {"attention_half": "both"},
        {"reforward_after_update": True},
        {"reforward_after_update": True, "attention_half": "both"},
        {"mask_from_step": 1},
        {"mask_morphology": True},
        {"mask_threshold": 0.6},
        {"guidance_scale": 1.0},
        {"guidance_scale": 1.0, "attention_half": "both"},
        {"text_encoder_lora": False},
        {"step_size": 5.0, "temperature": 0.2},
        {"refine_steps": (1,), "guide_until_step": 2},
        {"guide_until_step": 0},
        {"map_size": 32},
        {"scheduler": "dpmpp"},
    ],
    ids=str,
)
def test_every_setting(core, pipeline, row, change):
    sampler = tiny_sampler(**{**QUICK, **change})
    assert_equal_to_the_reference(core, pipeline, replace(row, sampler=sampler))


def test_a_solver_in_sigma_space(core, pipeline, row):
    # diffusers holds the sigmas in single precision, which the size of an update feels
    row = replace(row, sampler=tiny_sampler(**QUICK, scheduler="euler"))
    assert_equal_to_the_reference(core, pipeline, row, limit=1e-6, loss_limit=1e-6)


@pytest.mark.parametrize("method", ["clora-no-update", "clora-no-mask", "clora-neither"])
def test_every_ablation(core, pipeline, row, method):
    assert_equal_to_the_reference(core, pipeline, replace(row, method=method))


@pytest.mark.parametrize("size", [(192, 128), (64, 128)], ids=str)
def test_sizes_that_are_not_square(core, pipeline, row, size):
    width, height = size
    row = replace(row, width=width, height=height)
    _, trace = assert_equal_to_the_reference(core, pipeline, row)
    assert trace.masks[0].shape == (1, 3, height // 16, width // 16)


@pytest.mark.parametrize(
    ("prompt", "subjects", "triggers"),
    [
        ("a man and a man", ("man", "man"), ("sks", "zwx")),
        ("a blackcat and a plushie dog", ("blackcat", "plushie dog"), ("szn style", "brownshie")),
        ("a cat and a dog", ("cat", "dog"), ("cat in szn style", "sks dog")),
        ("two CATS and a dog", ("cat", "dog"), (None, None)),
        ("a cat and a dog", ("dog", "cat"), ("sks", "sks")),
    ],
    ids=["one noun twice", "pieces", "trigger with subject", "no trigger", "one trigger twice"],
)
def test_every_kind_of_subject_and_trigger(core, pipeline, row, prompt, subjects, triggers):
    loras = tuple(
        replace(lora, subject=subject, trigger=trigger)
        for lora, subject, trigger in zip(row.loras, subjects, triggers, strict=True)
    )
    assert_equal_to_the_reference(core, pipeline, replace(row, prompt=prompt, loras=loras))


def test_a_negative_prompt_goes_through_each_variants_text_encoder(core, pipeline, row):
    row = replace(row, negative_prompt="a painting of a bird")
    assert_equal_to_the_reference(core, pipeline, row)


def test_one_file_as_both_concepts(core, pipeline, row):
    loras = tuple(replace(lora, uri=row.loras[1].uri, digest="same") for lora in row.loras)
    assert_equal_to_the_reference(core, pipeline, replace(row, loras=loras))


def test_eight_concepts(core, pipeline, row):
    nouns = ("cat", "dog", "bird", "book", "fox", "man", "cat", "dog")
    loras = tuple(
        replace(row.loras[index % 2], subject=noun, trigger="sks", weight=1 - index / 10)
        for index, noun in enumerate(nouns)
    )
    sampler = tiny_sampler(num_steps=1, guide_until_step=1, num_refine_updates=1)
    prompt = "a cat, a dog, a bird, a book, a fox, a man, a cat and a dog"
    row = replace(row, prompt=prompt, loras=loras, sampler=sampler, width=64, height=64)
    expected = sequential_sample(pipeline, row)
    found, trace = core.sample(row)
    assert relative(found, expected.latents) < 1e-12
    assert trace.coverage[0].shape == (1, 8)


def test_single_precision_stays_close(tiny_sd_dir, core, row):
    exact, _ = core.sample(row)
    rounded, _ = Core(tiny_sd_dir, "float32").sample(row)
    assert rounded.dtype == torch.float32
    assert relative(rounded, exact) < 2e-5


def test_half_precision_keeps_latents_and_losses_in_single(tiny_sd_dir, core, row):
    exact, exact_trace = core.sample(row)
    rounded, trace = Core(tiny_sd_dir, "bfloat16").sample(row)
    assert rounded.dtype == trace.losses[0].dtype == torch.float32
    assert float(trace.losses[0]) == pytest.approx(float(exact_trace.losses[0]), rel=0.05)
    assert relative(rounded, exact) < 0.3


# -------------------------------------------------------------------- shortcuts and the long way


@pytest.fixture(scope="module")
def joint(core, tiny_loras):
    """Rows and what the joint graph makes of them, once."""
    row = two_concept_row(tiny_loras, width=64, height=64, sampler=tiny_sampler(**QUICK))
    both = tiny_sampler(**QUICK, attention_half="both")
    fresh = tiny_sampler(**QUICK, reforward_after_update=True)
    unguided = tiny_sampler(**QUICK, guidance_scale=1.0)
    kinds = {
        "plain": [row, replace(row, seed=8)],
        "both halves": [replace(row, sampler=both)],
        "predicted anew": [replace(row, sampler=fresh)],
        "without guidance": [replace(row, sampler=unguided)],
    }
    return {kind: (rows, *core.sample(rows)) for kind, rows in kinds.items()}


ONE_LANE, SMALL_GRAPH = {"max_lanes": 1}, {"graph_budget_bytes": 1}


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("plain", ONE_LANE),
        ("plain", SMALL_GRAPH),
        ("plain", {"max_lanes": 2}),
        ("plain", {"max_lanes": 3}),
        ("plain", {"max_lanes": 7}),
        ("plain", {"max_lanes": 2, "graph_budget_bytes": 1}),
        ("both halves", {"max_lanes": 2}),
        ("both halves", SMALL_GRAPH),
        ("predicted anew", {"max_lanes": 2}),
        ("predicted anew", SMALL_GRAPH),
        ("without guidance", {"max_lanes": 2}),
        ("without guidance", SMALL_GRAPH),
    ],
    ids=str,
)
def test_chunks_and_two_passes_change_nothing(core, joint, kind, limits):
    rows, expected, expected_trace = joint[kind]
    found, trace = core.sample(rows, **limits)
    assert relative(found, expected) < 1e-12
    for ours, theirs in zip(trace.losses, expected_trace.losses, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)


def test_a_large_budget_keeps_the_joint_graph(core, joint):
    rows, expected, expected_trace = joint["plain"]
    found, trace = core.sample(rows, graph_budget_bytes=2**40)
    assert torch.equal(found, expected)
    assert trace.evaluations == expected_trace.evaluations


def test_a_small_budget_takes_two_passes_and_counts_them(core, joint):
    rows, _, expected_trace = joint["plain"]
    _, trace = core.sample(rows, graph_budget_bytes=1)
    num_updates, num_variants = 2, 3
    assert trace.evaluations == expected_trace.evaluations + num_updates * num_variants


def test_passes_that_stop_early_give_what_whole_passes_give(core, joint, monkeypatch):
    rows, expected, expected_trace = joint["plain"]
    start = MapCapture.start

    def whole(self, *, stop_after_maps):
        stops.append(stop_after_maps)
        start(self, stop_after_maps=False)

    monkeypatch.setattr(MapCapture, "start", whole)
    stops = []
    for limits in ({}, {"graph_budget_bytes": 1}):
        found, trace = core.sample(rows, **limits)
        assert relative(found, expected) < 1e-12
        assert len(trace.losses) == len(expected_trace.losses)
    assert any(stops)


SCHEDULES = [
    {},
    {"attention_half": "both"},
    {"reforward_after_update": True},
    {"reforward_after_update": True, "attention_half": "both"},
    {"guidance_scale": 1.0},
    {"guidance_scale": 1.0, "attention_half": "both"},
    {"guide_until_step": 0},
    {"refine_steps": ()},
]


@pytest.mark.parametrize("change", SCHEDULES, ids=str)
def test_evaluations_are_counted_as_foretold(core, joint, change):
    row = replace(joint["plain"][0][0], sampler=tiny_sampler(**{**QUICK, **change}))
    _, trace = core.sample([row, replace(row, seed=3)])
    assert trace.evaluations == unet_evaluations("clora", 2, row.sampler)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_concepts", [1, 2, 3])
def test_evaluations_of_every_method(core, three, style, method, num_concepts):
    if not METHODS[method].min_concepts <= num_concepts <= (METHODS[method].max_concepts or 3):
        pytest.skip("the method takes another number")
    sampler = tiny_sampler(num_steps=2, guide_until_step=1, num_refine_updates=1)
    row = replace(
        three,
        method=method,
        loras=(*three.loras[:num_concepts], *[style] * (METHODS[method].num_styles or 0)),
        sampler=sampler,
        width=64,
        height=64,
    )
    _, trace = core.sample(with_adapter(row), graph_budget_bytes=2**40)
    assert trace.evaluations == unet_evaluations(method, num_concepts, row.sampler)


def test_paper_preset_costs_what_the_paper_schedule_says():
    from clora_core.recipe.config import sampler_preset

    # 3 variants x 2 halves x 50 steps, and the conditional half for 60 refinements
    assert unet_evaluations("clora", 2, sampler_preset("paper")) == 300 + 180
    assert unet_evaluations("merge", 2, sampler_preset("paper")) == 100
    assert unet_evaluations("composite", 3, sampler_preset("paper")) == 300


# ------------------------------------------------------------------------------------- behaviour


def test_noise_is_each_rows_own_and_drawn_in_single_precision(core):
    both = initial_noise(core.model, [3, 4], 128, 64)
    assert both.shape == (2, 4, 16, 8)
    assert both.dtype == torch.float64
    alone = torch.randn((1, 4, 16, 8), generator=torch.Generator("cpu").manual_seed(4))
    assert torch.equal(both[1:], alone.double())


def test_sampling_neither_uses_nor_moves_the_global_generator(core, row):
    row = replace(row, width=64, height=64)
    torch.manual_seed(0)
    first, _ = core.sample(row)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    second, _ = core.sample(row)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)


def test_a_row_with_maps_of_no_contrast_is_not_moved(core, row, monkeypatch):
    monkeypatch.setattr(
        "clora_core.sampling.guidance.has_constant_map",
        lambda *_: torch.tensor([False, True]),
    )
    rows = [replace(row, width=64, height=64), replace(row, width=64, height=64, seed=8)]
    found, _ = core.sample(rows)
    still = [replace(r, method="clora-no-update") for r in rows]
    expected, _ = core.sample(still)
    assert relative(found[1], expected[1]) < 1e-12
    assert relative(found[0], expected[0]) > 1e-4


def test_updates_lower_the_loss(core, row):
    sampler = tiny_sampler(num_steps=1, guide_until_step=1, num_refine_updates=5)
    _, trace = core.sample(replace(row, sampler=sampler))
    assert float(trace.losses[-1]) < float(trace.losses[0]) - 0.05
