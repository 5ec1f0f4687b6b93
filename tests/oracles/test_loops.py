"""The loops against golden vectors, against each other and against diffusers' own pipelines."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from oracles.golden_losses import GOLDEN, GOLDEN_GRADIENT
from oracles.loops import loop_blend, loop_loss, loop_masks, loop_sample
from oracles.peft_pipeline import (
    decode,
    initial_latents,
    load_pipeline,
    loaded_loras,
    make_solver,
)
from oracles.prompts import OracleVariant
from oracles.sequential import blend, concept_masks, contrastive_loss
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.recipe.config import SamplerConfig


def _tensor_loss(maps, labels):
    """The library's loss, through maps whose tokens are the given rows."""
    order = sorted(range(len(labels)), key=lambda row: labels[row])
    tensor = torch.tensor(maps, dtype=torch.float64).T[None]  # [1, position, token]
    words = tuple(
        tuple(row for row in order if labels[row] == label) for label in sorted(set(labels))
    )
    variant = OracleVariant(text="", words=words, active=None)
    return contrastive_loss([tensor], [variant], temperature=0.5)


@pytest.mark.parametrize(("maps", "labels", "expected"), GOLDEN)
def test_both_losses_give_the_golden_values(maps, labels, expected):
    assert loop_loss(maps, labels, temperature=0.5) == pytest.approx(expected, rel=1e-13)
    assert _tensor_loss(maps, labels).item() == pytest.approx(expected, rel=1e-13)


def test_the_golden_gradient():
    rows = torch.tensor(GOLDEN[0][0], dtype=torch.float64, requires_grad=True)
    variant = OracleVariant(text="", words=((0, 1, 2), (3, 4, 5)), active=None)
    contrastive_loss([rows.T[None]], [variant], temperature=0.5).backward()
    assert rows.grad[0].tolist() == pytest.approx(GOLDEN_GRADIENT, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_and_blend_of_four_pixels(dtype):
    first = torch.tensor([0.1, 0.29, 0.31, 1.0], dtype=dtype)
    second = torch.tensor([1, 0.2, 0.5, 0.3], dtype=dtype)
    maps = torch.stack([torch.zeros(4, dtype=dtype), first, second])[:, None, :, None]
    variants = [
        OracleVariant(text="", words=((0,), (0,)), active=active) for active in (None, 0, 1)
    ]
    expected = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], dtype=torch.bool)[:, None]
    masks = loop_masks(maps, [[], [0], [0]], threshold=0.3)
    assert torch.equal(masks, expected)
    assert torch.equal(
        concept_masks(list(maps), variants, SamplerConfig(mask_threshold=0.3)), expected
    )

    predictions = torch.tensor([1.0, 10.0, 100.0], dtype=dtype).expand(1, 1, 4, 3)
    predictions = predictions.permute(3, 0, 1, 2)  # [variant, channel, height, width]
    blended = loop_blend(predictions, masks)
    assert blended.flatten().tolist() == [100.0, 1.0, 55.0, 10.0]
    assert torch.equal(blend(list(predictions[:, None]), masks)[0], blended)


def test_loops_and_tensors_agree_on_random_maps():
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(3, 4, 6, 9, generator=generator, dtype=torch.float64) ** 3
    words = [((2,), (5,)), ((2, 3), (6,)), ((2,), (5, 6))]
    variants = [
        OracleVariant(text="", words=concepts, active=active)
        for concepts, active in zip(words, (None, 0, 1), strict=True)
    ]
    masks = loop_masks(maps, [[], [2, 3], [5, 6]], threshold=0.4)
    settings = SamplerConfig(mask_threshold=0.4)
    assert torch.equal(concept_masks(list(maps), variants, settings), masks)
    assert masks.any(dim=0).all()

    predictions = torch.randn(3, 4, 8, 12, generator=generator, dtype=torch.float64)
    expected = loop_blend(predictions, masks)
    assert torch.allclose(blend(list(predictions[:, None]), masks)[0], expected, atol=1e-14)

    rows, labels = [], []
    for concept in range(2):
        for variant, concepts in enumerate(words):
            for token in concepts[concept]:
                rows.append(maps[variant, :, :, token].flatten().tolist())
                labels.append(concept)
    loss = contrastive_loss(list(maps), variants, temperature=0.5).item()
    assert loss == pytest.approx(loop_loss(rows, labels, temperature=0.5), rel=1e-12)


# ---------------------------------------------------------------------------- against diffusers


def _diffusers_latents(pipeline, row, prompt):
    """What the library's own pipeline makes of the same noise."""
    latents = initial_latents(pipeline, row, make_solver(pipeline, row))
    scale = pipeline.scheduler.init_noise_sigma
    if scale != 1:  # the pipeline will scale by itself, once it has set its own timesteps
        latents = latents / make_solver(pipeline, row).init_noise_sigma
    return pipeline(
        prompt,
        negative_prompt=row.negative_prompt,
        num_inference_steps=row.sampler.num_steps,
        guidance_scale=row.sampler.guidance_scale,
        height=row.height,
        width=row.width,
        latents=latents,
        output_type="latent",
    ).images


def _relative(left, right):
    return ((left - right).norm() / right.norm()).item()


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    """In float64, with the LoRAs kept loaded, which saves half of the time."""
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    names = ("peft_attention", "peft_text", "style")
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in names]):
        yield pipeline


@pytest.fixture
def row(tiny_loras):
    return two_concept_row(tiny_loras, width=192, height=128, sampler=tiny_sampler(num_steps=3))


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp", "euler"])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_base_is_diffusers_own_pipeline(tiny_sd_dir, row, scheduler, guidance_scale):
    pipeline = load_pipeline(tiny_sd_dir)
    sampler = tiny_sampler(scheduler=scheduler, guidance_scale=guidance_scale)
    row = replace(row, method="base", negative_prompt="a bird", sampler=sampler)
    found = loop_sample(pipeline, row)
    solvers = {"dpmpp": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}
    if scheduler in solvers:
        pipeline.scheduler = solvers[scheduler].from_config(pipeline.scheduler.config)
    assert _relative(found, _diffusers_latents(pipeline, row, row.prompt)) < 1e-5


def test_base_is_diffusers_own_sdxl_pipeline(tiny_sdxl_dir, row):
    pipeline = load_pipeline(tiny_sdxl_dir)
    sampler = tiny_sampler(scheduler="euler", num_steps=2)
    row = replace(row, method="base", width=256, height=128, sampler=sampler)
    found = loop_sample(pipeline, row)
    assert _relative(found, _diffusers_latents(pipeline, row, row.prompt)) < 1e-5


def test_merge_is_diffusers_with_all_adapters_set(pipeline, row, tiny_loras):
    loras = (
        replace(row.loras[0], weight=0.7),
        replace(row.loras[1], weight=0.5),
        lora_use(tiny_loras["style"], kind="style", weight=0.6),
    )
    row = replace(row, method="merge", loras=loras)
    found = loop_sample(pipeline, row)
    with loaded_loras(pipeline, loras) as names:
        pipeline.set_adapters(names, [0.7, 0.5, 0.6])
        expected = _diffusers_latents(pipeline, row, "a sks cat and a zwx dog")
    assert _relative(found, expected) < 1e-12


def test_single_with_weight_zero_is_the_base_with_the_trigger(pipeline, row):
    lora = replace(row.loras[1], weight=0.0)
    single = replace(row, method="single", loras=(lora,))
    base = replace(row, method="base", prompt="a cat and a zwx dog")
    assert _relative(loop_sample(pipeline, single), loop_sample(pipeline, base)) < 1e-13


@pytest.mark.parametrize("name", ["kohya_locon", "kohya_text_only", "diffusers_old", "bare_peft"])
def test_every_format_changes_the_image(pipeline, row, tiny_loras, name):
    lora = lora_use(tiny_loras[name], subject="cat")
    changed = loop_sample(pipeline, replace(row, method="single", loras=(lora,)))
    assert _relative(changed, loop_sample(pipeline, replace(row, method="base"))) > 0.01


def test_composite_of_one_step_is_the_mean_of_its_loras_alone(pipeline, row):
    sampler = tiny_sampler(num_steps=1, guide_until_step=0, text_encoder_lora=False)
    loras = tuple(replace(lora, trigger=None) for lora in row.loras)
    row = replace(row, sampler=sampler, loras=loras)
    alone = [loop_sample(pipeline, replace(row, method="single", loras=(lora,))) for lora in loras]
    together = loop_sample(pipeline, replace(row, method="composite"))
    assert _relative(together, (alone[0] + alone[1]) / 2) < 1e-13


def test_the_same_file_twice_counts_twice(pipeline, row):
    lora = replace(row.loras[0], kind="style")
    twice = replace(row, method="merge", loras=(replace(lora, weight=0.4),) * 2)
    once = replace(row, method="merge", loras=(replace(lora, weight=0.8),))
    assert _relative(loop_sample(pipeline, twice), loop_sample(pipeline, once)) < 1e-13


@pytest.mark.parametrize(
    ("as_published", "expected"), [(False, "001122001122"), (True, "000112200112")]
)
def test_switch_takes_turns(row, as_published, expected):
    from oracles.loops import _switch_index

    sampler = SamplerConfig(switch_every=2, switch_as_published=as_published)
    row = replace(row, loras=(*row.loras, row.loras[0]), method="switch", sampler=sampler)
    assert "".join(str(_switch_index(row, step)) for step in range(12)) == expected


def test_switch_with_a_long_period_is_its_first_lora_in_the_text_of_all(pipeline, row):
    loras = tuple(replace(lora, trigger=None) for lora in row.loras)
    sampler = tiny_sampler(num_steps=2, switch_every=2, text_encoder_lora=False)
    row = replace(row, loras=loras, sampler=sampler)
    switched = loop_sample(pipeline, replace(row, method="switch"))
    alone = loop_sample(pipeline, replace(row, method="single", loras=loras[:1]))
    assert torch.equal(switched, alone)


def test_decoding_is_that_of_diffusers(tiny_sd_dir, row):
    pipeline = load_pipeline(tiny_sd_dir)
    row = replace(row, method="base", sampler=tiny_sampler(num_steps=2))
    latents = loop_sample(pipeline, row)
    expected = pipeline.image_processor.postprocess(
        pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)[0].detach(),
        output_type="np",
    )[0]
    image = decode(pipeline, latents)
    assert image.shape == (128, 192, 3)
    assert abs(image - expected * 255).max() <= 0.5 + 1e-3
    assert not math.isclose(image.std(), 0)
