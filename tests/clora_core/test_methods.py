"""Every method against loops over peft's adapters and against diffusers' own pipelines."""

from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from oracles.core_runs import Core, relative
from oracles.loops import loop_sample
from oracles.peft_pipeline import initial_latents, load_pipeline, loaded_loras, make_solver
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row, with_adapter

from clora_core.recipe.errors import CompositionError, PromptError
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.methods.switch import active_concept

QUICK = {"num_steps": 2, "guide_until_step": 1, "num_refine_updates": 1}


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    names = ("peft_attention", "peft_text", "kohya_text", "style")
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in names]):
        yield pipeline


@pytest.fixture
def row(tiny_loras):
    """Two concepts and two styles, one of them with text-encoder weights."""
    row = two_concept_row(tiny_loras, width=128, height=64, sampler=tiny_sampler(**QUICK))
    cat, dog = row.loras
    styles = (
        lora_use(tiny_loras["style"], kind="style", weight=0.6),
        lora_use(tiny_loras["kohya_text"], kind="style", weight=0.4),
    )
    return replace(row, loras=(replace(cat, weight=0.7), *styles, dog))


def styles_of(row):
    return tuple(lora for lora in row.loras if lora.kind == "style")


def only_one(row):
    return replace(row, loras=row.loras[1:], method="single")


def as_taken(row):
    """The row with as many concepts and styles as its method takes."""
    method = METHODS[row.method]
    concepts = row.concepts[-(method.max_concepts or len(row.concepts)) :]
    styles = styles_of(row)[: method.num_styles]
    loras = tuple(lora for lora in row.loras if lora in (*concepts, *styles))
    return with_adapter(replace(row, loras=loras))


@pytest.mark.parametrize("method", ["base", "single", "merge", "composite", "switch"])
@pytest.mark.parametrize("text_encoder_lora", [True, False])
def test_simple_methods_are_their_loops(core, pipeline, row, method, text_encoder_lora):
    sampler = tiny_sampler(num_steps=3, switch_every=1, text_encoder_lora=text_encoder_lora)
    row = replace(row, method=method, sampler=sampler, negative_prompt="a bird")
    if method == "single":
        row = only_one(row)
    found, trace = core.sample(row)
    assert relative(found, loop_sample(pipeline, row)) < 1e-12
    assert (trace.losses, trace.coverage, trace.overlap) == ([], [], [])


@pytest.mark.parametrize("method", ["single", "merge", "composite", "switch"])
def test_simple_methods_without_guidance(core, pipeline, row, method):
    row = replace(row, method=method, sampler=tiny_sampler(num_steps=2, guidance_scale=1.0))
    if method == "single":
        row = only_one(row)
    assert relative(core.sample(row)[0], loop_sample(pipeline, row)) < 1e-12


@pytest.mark.parametrize("as_published", [True, False])
def test_switch_takes_turns_as_its_loop_does(core, pipeline, row, as_published):
    sampler = tiny_sampler(num_steps=6, switch_every=2, switch_as_published=as_published)
    row = replace(row, method="switch", sampler=sampler)
    assert relative(core.sample(row)[0], loop_sample(pipeline, row)) < 1e-12


@pytest.mark.parametrize(
    ("as_published", "turns"), [(False, "001122001122"), (True, "000112200112")]
)
def test_the_turns_of_three_loras(as_published, turns):
    config = tiny_sampler(switch_every=2, switch_as_published=as_published)
    mix = Mix(("concept",) * 3, config)
    assert "".join(str(active_concept(step, mix)) for step in range(12)) == turns


@pytest.mark.parametrize("every", [1, 3, 5])
@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_the_papers_formula_of_turns(every, num):
    mix = Mix(("concept",) * num, tiny_sampler(switch_every=every))
    for step in range(40):
        assert active_concept(step, mix) == (step % (num * every)) // every


def test_mean_weights_divide_concepts_and_leave_styles(core, pipeline, row):
    row = replace(row, method="merge", sampler=tiny_sampler(num_steps=2, merge_weights="mean"))
    found, _ = core.sample(row)
    assert relative(found, loop_sample(pipeline, row)) < 1e-12
    shared = tuple(
        replace(lora, weight=lora.weight / (2 if lora.kind == "concept" else 1))
        for lora in row.loras
    )
    as_given = replace(row, loras=shared, sampler=tiny_sampler(num_steps=2))
    assert relative(core.sample(as_given)[0], found) < 1e-13


def test_merge_of_styles_alone_needs_no_concept(core, pipeline, row):
    row = replace(row, method="merge", loras=styles_of(row))
    assert relative(core.sample(row)[0], loop_sample(pipeline, row)) < 1e-12


def test_the_same_file_twice_counts_twice(core, row):
    twice = replace(row, method="merge", loras=(replace(styles_of(row)[0], weight=0.4),) * 2)
    once = replace(row, method="merge", loras=(replace(styles_of(row)[0], weight=0.8),))
    assert relative(core.sample(twice)[0], core.sample(once)[0]) < 1e-13


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_zero_are_the_base_with_triggers(core, row, method):
    loras = tuple(replace(lora, weight=0.0, trigger=None) for lora in row.loras)
    sampler = tiny_sampler(
        num_steps=2,
        guide_until_step=0,
        gate_update_until=0.0,
        freefuse_negative_bias=0.0,
        freefuse_positive_bias=0.0,
    )
    row = as_taken(replace(row, method=method, loras=loras, sampler=sampler))
    base = replace(row, method="base", loras=(), fused=None)
    assert relative(core.sample(row)[0], core.sample(base)[0]) < 1e-13


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("base", "merge")])
def test_methods_for_concepts_refuse_a_row_without(core, row, method):
    row = replace(row, method=method, loras=styles_of(row))
    with pytest.raises(CompositionError, match=f"method '{method}' needs [12] .*the row has 0"):
        core.sample(row)


def test_single_refuses_two_concepts(core, row):
    with pytest.raises(
        CompositionError, match=r"'single' needs 1 concept LoRA\(s\), the row has 2"
    ):
        core.sample(replace(row, method="single"))


def test_an_unknown_method_is_refused_with_the_known_ones(core, row):
    with pytest.raises(PromptError, match="no method 'mix'; there are base, single, merge"):
        core.sample(replace(row, method="mix"))


# ----------------------------------------------------------------------- against diffusers' own


def diffusers_latents(pipeline, row, **settings):
    """What the library's own pipeline makes of the same noise."""
    latents = initial_latents(pipeline, row, make_solver(pipeline, row))
    if pipeline.scheduler.init_noise_sigma != 1:  # the pipeline multiplies by it itself
        latents = latents / make_solver(pipeline, row).init_noise_sigma
    return pipeline(
        row.prompt,
        num_inference_steps=row.sampler.num_steps,
        guidance_scale=row.sampler.guidance_scale,
        height=row.height,
        width=row.width,
        latents=latents,
        output_type="latent",
        **settings,
    ).images


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp", "euler"])
def test_base_is_diffusers_own_pipeline(core, tiny_sd_dir, row, scheduler, guidance_scale):
    sampler = tiny_sampler(scheduler=scheduler, num_steps=4, guidance_scale=guidance_scale)
    row = replace(row, method="base", negative_prompt="a bird", sampler=sampler)
    own = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    solvers = {"dpmpp": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}
    if scheduler in solvers:
        own.scheduler = solvers[scheduler].from_config(own.scheduler.config)
    expected = diffusers_latents(own, row, negative_prompt="a bird")
    assert relative(core.sample(row)[0], expected) < 1e-6


@pytest.fixture(scope="module")
def core_xl(tiny_sdxl_dir):
    return Core(tiny_sdxl_dir)


@pytest.fixture(scope="module")
def pipeline_xl(tiny_sdxl_dir):
    return load_pipeline(tiny_sdxl_dir, dtype=torch.float64)


@pytest.fixture
def row_xl(tiny_sdxl_loras):
    """Maps of 8x4; a negative prompt, because an empty one is a matter of its own."""
    sampler = tiny_sampler(**QUICK, scheduler="euler")
    return two_concept_row(
        tiny_sdxl_loras, width=128, height=256, sampler=sampler, negative_prompt="a bird"
    )


def test_base_is_diffusers_own_sdxl_pipeline(core_xl, pipeline_xl, row_xl):
    row = replace(row_xl, method="base")
    expected = diffusers_latents(pipeline_xl, row, negative_prompt="a bird")
    assert relative(core_xl.sample(row)[0], expected) < 1e-6


def test_an_empty_negative_prompt_of_sdxl_is_zeros_as_without_one(core_xl, pipeline_xl, row_xl):
    row = replace(row_xl, method="base", negative_prompt="")
    found, _ = core_xl.sample(row)
    assert relative(found, diffusers_latents(pipeline_xl, row)) < 1e-6
    # an encoded empty text would be something else
    assert relative(found, diffusers_latents(pipeline_xl, row, negative_prompt="")) > 1e-4


def test_rows_with_and_without_a_negative_prompt_go_together(core_xl, row_xl):
    rows = [replace(row_xl, method="base", negative_prompt=text) for text in ("", "a bird")]
    together, _ = core_xl.sample(rows)
    for index, alone in enumerate(rows):
        assert relative(together[index], core_xl.sample(alone)[0][0]) < 1e-12


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_clora_on_sdxl_is_the_sequential_reference(
    core_xl, pipeline_xl, row_xl, tiny_sdxl_loras, scheduler
):
    style = lora_use(tiny_sdxl_loras["kohya_text"], kind="style", weight=0.5)
    sampler = tiny_sampler(**QUICK, scheduler=scheduler)
    row = replace(row_xl, loras=(*row_xl.loras, style), sampler=sampler)
    expected = sequential_sample(pipeline_xl, row)
    found, trace = core_xl.sample(row, keep_maps=True)
    assert relative(found, expected.latents) < (1e-12 if scheduler == "ddim" else 1e-6)
    assert torch.equal(trace.masks[0][0], expected.masks[0])


@pytest.mark.parametrize("method", ["single", "merge", "composite", "switch"])
def test_simple_methods_on_sdxl_are_their_loops(core_xl, pipeline_xl, row_xl, method):
    row = replace(row_xl, method=method)
    if method == "single":
        row = only_one(row)
    assert relative(core_xl.sample(row)[0], loop_sample(pipeline_xl, row)) < 1e-6
