"""The sequential reference against what must hold of it, whatever its code looks like."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles.explicit_attention import map_layers, stored_attention
from oracles.loops import loop_blend, loop_sample
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row


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
    """Maps of 8 x 12: small, and not square."""
    return two_concept_row(tiny_loras, width=192, height=128)


def test_the_map_layers_of_the_tiny_models(tiny_sd_dir, tiny_sdxl_dir):
    layers, position_px = map_layers(load_pipeline(tiny_sd_dir).unet)
    assert position_px == 2
    assert [name.split(".transformer")[0] for name in layers] == [
        "down_blocks.1.attentions.0",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
    ]
    layers, position_px = map_layers(load_pipeline(tiny_sdxl_dir).unet)
    assert position_px == 4
    assert {name.split(".attentions")[0] for name in layers} == {
        "down_blocks.2",
        "mid_block",
        "up_blocks.0",
    }


def test_the_map_layers_of_stable_diffusion_1_5():
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    layers, position_px = map_layers(unet)
    assert position_px == 4
    assert [name.split(".transformer")[0] for name in layers] == [
        "down_blocks.2.attentions.0",
        "down_blocks.2.attentions.1",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
        "up_blocks.1.attentions.2",
    ]


def test_attention_written_out_is_attention(pipeline):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 24, generator=generator, dtype=torch.float64)
    states = torch.randn(2, 77, 32, generator=generator, dtype=torch.float64)
    before = dict(pipeline.unet.attn_processors)
    with torch.no_grad():
        fused = pipeline.unet(latents, 500, states)[0]
        with stored_attention(pipeline.unet) as store:
            explicit = pipeline.unet(latents, 500, states)[0]
            assert len(store) == 7
            for maps in store.values():
                assert torch.allclose(maps.sum(-1), torch.ones_like(maps[..., 0]))
    assert _relative(explicit, fused) < 1e-13
    assert pipeline.unet.attn_processors == before


def test_sampling_leaves_the_pipeline_as_it_was(tiny_sd_dir, row):
    pipeline = load_pipeline(tiny_sd_dir)
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    text_before = {name: t.clone() for name, t in pipeline.text_encoder.state_dict().items()}
    row = replace(row, sampler=tiny_sampler(num_steps=1, guide_until_step=1, refine_steps=()))
    first = sequential_sample(pipeline, row)
    for model, weights in ((pipeline.unet, before), (pipeline.text_encoder, text_before)):
        after = model.state_dict()
        assert after.keys() == weights.keys()
        assert all(torch.equal(after[name], weights[name]) for name in weights)
    again = sequential_sample(pipeline, row)
    assert torch.equal(first.latents, again.latents)


def test_counts_of_updates_masks_and_evaluations(pipeline, row):
    result = sequential_sample(pipeline, row)
    assert len(result.losses) == 3 + 1  # refined step 0, plain step 1 of 4
    assert len(result.masks) == len(result.maps) == len(result.latents_after_step) == 4
    assert result.maps[0].shape == (3, 8, 12, 77)
    assert result.unet_evaluations == 2 * 3 * (4 + 2)
    for masks in result.masks:
        assert masks.any(dim=0).all()
        assert not (masks[0] & masks[1:].any(dim=0)).any()
        assert 0 < masks[1:].double().mean() < 1


@pytest.mark.parametrize("half", ["cond", "both"])
def test_the_gradient_predicts_how_the_loss_falls(pipeline, row, half):
    tiny_step = 1e-4
    sampler = tiny_sampler(
        num_steps=1,
        guide_until_step=1,
        num_refine_updates=1,
        step_size=tiny_step,
        attention_half=half,
    )
    result = sequential_sample(pipeline, replace(row, sampler=sampler))
    fall = (result.losses[0] - result.losses[1]) / tiny_step
    assert fall == pytest.approx(result.gradients[0].square().sum().item(), rel=1e-3)


def test_updates_lower_the_loss(pipeline, row):
    sampler = tiny_sampler(num_steps=1, guide_until_step=1, num_refine_updates=5)
    result = sequential_sample(pipeline, replace(row, sampler=sampler))
    assert result.losses[-1] < result.losses[0] - 0.05


def test_one_step_without_updates_is_the_blend_of_base_and_singles(pipeline, row, tiny_loras):
    # One DDIM step is affine in the noise, pixel by pixel, so blending may come after it.
    style = lora_use(tiny_loras["style"], kind="style", weight=0.6)
    sampler = tiny_sampler(num_steps=1, guide_until_step=0)
    row = replace(row, sampler=sampler)
    for method in ("clora-no-update", "clora-neither"):
        composed = replace(row, method=method, loras=(*row.loras, style))
        result = sequential_sample(pipeline, composed)
        alone = [
            loop_sample(pipeline, replace(row, method="merge", loras=loras))
            for loras in ((style,), *((lora, style) for lora in row.concepts))
        ]
        expected = loop_blend(torch.cat(alone), result.masks[0])[None]
        assert _relative(result.latents, expected) < 1e-13
        assert result.masks[0].all() == (method == "clora-neither")


def test_masks_wait_for_their_first_step(pipeline, row):
    sampler = tiny_sampler(num_steps=3, guide_until_step=0, mask_from_step=1)
    result = sequential_sample(pipeline, replace(row, sampler=sampler))
    assert result.masks[0].all()
    assert not result.masks[1].all()


@pytest.mark.parametrize(
    "change",
    [
        {"step_size": 10.0},
        {"temperature": 0.2},
        {"mask_threshold": 0.6},
        {"mask_morphology": True},
        {"mask_from_step": 1},
        {"attention_half": "both"},
        {"reforward_after_update": True},
        {"text_encoder_lora": False},
        {"guidance_scale": 1.0},
        {"num_refine_updates": 1},
        {"refine_steps": ()},
        {"guide_until_step": 0},
        {"map_size": 32},
        {"scheduler": "euler"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_matters(pipeline, row, change):
    quick = {"num_steps": 2, "guide_until_step": 1, "num_refine_updates": 2}
    row = replace(row, width=128)
    plain = _cached_plain(pipeline, row, quick)
    changed = sequential_sample(pipeline, replace(row, sampler=tiny_sampler(**{**quick, **change})))
    assert torch.isfinite(changed.latents).all()
    assert _relative(changed.latents, plain) > 1e-4


_PLAIN: dict[int, torch.Tensor] = {}


def _cached_plain(pipeline, row, quick):
    if id(pipeline) not in _PLAIN:
        result = sequential_sample(pipeline, replace(row, sampler=tiny_sampler(**quick)))
        _PLAIN[id(pipeline)] = result.latents
    return _PLAIN[id(pipeline)]


def test_one_concept_has_nothing_to_keep_apart(pipeline, row):
    row = replace(row, loras=row.loras[:1], sampler=tiny_sampler(num_steps=1, guide_until_step=1))
    result = sequential_sample(pipeline, row)
    assert result.losses == []
    assert result.masks[0].shape == (2, 8, 12)


def test_single_precision_stays_close_to_double(tiny_sd_dir, pipeline, row):
    exact = sequential_sample(pipeline, row).latents_after_step
    rounded = sequential_sample(load_pipeline(tiny_sd_dir), row).latents_after_step
    assert all(_relative(found, true) < 1e-5 for found, true in zip(rounded, exact, strict=True))


def test_sdxl_goes_through_the_same_steps(tiny_sdxl_dir, tiny_sdxl_loras):
    sampler = tiny_sampler(num_steps=2, guide_until_step=1, num_refine_updates=1)
    row = two_concept_row(tiny_sdxl_loras, width=256, height=128, sampler=sampler)
    result = sequential_sample(load_pipeline(tiny_sdxl_dir), row)
    assert len(result.losses) == 2
    assert result.masks[0].shape == (3, 4, 8)
    assert torch.isfinite(result.latents).all()
