"""The gated methods against a plain sequential reference, and their shortcuts against the long way.

``oracles.gated_sequential`` computes each file's residual at each position, each text's attention,
and every mask in loops; the sampler must give the same latents.
"""

from dataclasses import replace

import pytest
import torch
from oracles.core_runs import Core, relative
from oracles.gated_sequential import gated_sample
from oracles.loops import loop_sample
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.cost import first_phase_evaluations, unet_evaluations
from clora_core.recipe.row import Region

HELD = ("peft_attention", "peft_text", "kohya_text", "kohya_locon", "style")
QUICK = {"num_steps": 2, "guide_until_step": 0, "freefuse_steps": 2}
"""One step with an update, one without; the first phase of freefuse as long."""

WHOLE = Region(box=(0.0, 0.0, 1.0, 1.0), mode="replace")
LEFT = Region(box=(0.0, 0.0, 0.5, 1.0))
RIGHT = Region(box=(0.4, 0.0, 1.0, 0.7), mode="replace")


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    """In float64, with the LoRAs kept loaded, which saves half of the time."""
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in HELD]):
        yield pipeline


@pytest.fixture
def row(tiny_loras):
    """Latents of 8x8, maps of 4x4."""
    return two_concept_row(
        tiny_loras, method="clora-gated", width=64, height=64, sampler=tiny_sampler(**QUICK)
    )


@pytest.fixture
def three(row, tiny_loras):
    """Three concepts, one of them with convolutions and a trigger of several pieces."""
    bird = lora_use(tiny_loras["kohya_locon"], subject="bird", trigger="plushie", weight=0.7)
    return replace(row, prompt="a cat, a dog and a bird", loras=(*row.loras, bird))


@pytest.fixture
def style(tiny_loras):
    """With text-encoder weights."""
    return lora_use(tiny_loras["kohya_text"], kind="style", weight=0.5)


def with_settings(row, **changes):
    return replace(row, sampler=tiny_sampler(**{**QUICK, **changes}))


def with_regions(row, *regions):
    loras = tuple(
        replace(lora, region=region) for lora, region in zip(row.loras, regions, strict=True)
    )
    return replace(row, loras=loras)


def assert_equal_to_the_reference(core, pipeline, row, *, limit=1e-12):
    expected = gated_sample(pipeline, row)
    found, trace = core.sample(row)
    assert relative(found, expected.latents) < limit
    assert [float(loss) for loss in trace.losses] == pytest.approx(expected.losses, rel=limit)
    assert trace.evaluations == unet_evaluations(
        row.method,
        len(row.concepts),
        row.sampler,
        is_placed=row.method != "merge" and all(_is_placed(lora) for lora in row.concepts),
    )
    return expected, trace


def _is_placed(lora):
    return lora.region is not None and lora.region.mode == "replace"


# ----------------------------------------------------------------------- methods and compositions


def test_two_concepts_through_a_whole_schedule(core, pipeline, row):
    row = with_settings(row, num_steps=5, gate_update_until=0.8, gate_update_every=2)
    expected, trace = assert_equal_to_the_reference(core, pipeline, row)
    assert len(trace.losses) == 2
    masks = torch.stack(expected.masks)  # [step, part, height, width]
    assert (masks[1:] != masks[:-1]).flatten(1).any(dim=1).all()  # they follow the image
    assert (masks.mean(dim=(0, 2, 3)) > 0.05).all()  # and every part has some of it


def test_three_concepts_with_a_style(core, pipeline, three, style):
    """Text encoders, convolutions and time embeddings have LoRAs here."""
    assert_equal_to_the_reference(core, pipeline, replace(three, loras=(style, *three.loras)))


def test_one_concept_has_no_loss_but_a_gate(core, pipeline, row):
    _, trace = assert_equal_to_the_reference(core, pipeline, replace(row, loras=row.loras[1:]))
    assert trace.losses == []


def test_without_updates(core, pipeline, row):
    assert_equal_to_the_reference(core, pipeline, replace(row, method="clora-gated-no-update"))


SETTINGS = [
    {"gate_mask_source": "base", "gate_mask_kind": "argmax"},
    {"gate_mask_source": "self", "num_steps": 3, "guidance_scale": 1.0},
    {"gate_mask_kind": "soft", "attention_half": "both"},
    {"gate_mask_kind": "balanced", "text_encoder_lora": False, "temperature": 0.2},
    {"gate_mask_smoothing": 0.7, "mask_threshold": 0.5},
    {"gate_masks_until_step": 1, "gate_update_every": 1, "gate_update_until": 1.0},
    {"gate_masks_until_step": 2, "num_steps": 3, "guidance_scale": 1.0, "scheduler": "dpmpp"},
    {"gate_first_mask": "base", "gate_update_until": 0.0},
    {"gate_first_mask": "shared", "reforward_after_update": True},
    {"gate_base_steps": 2, "gate_mask_source": "base", "gate_mask_kind": "soft"},
    {"gate_base_steps": 9, "gate_mask_source": "self", "attention_half": "both"},
    {"guidance_scale": 1.0, "attention_half": "both", "map_size": 32},
]


@pytest.mark.parametrize("change", SETTINGS, ids=str)
def test_every_setting(core, pipeline, row, change):
    assert_equal_to_the_reference(core, pipeline, with_settings(row, **change))


def test_a_solver_in_sigma_space(core, pipeline, row):
    # diffusers holds the sigmas in single precision, which the size of an update feels
    row = with_settings(row, scheduler="euler")
    assert_equal_to_the_reference(core, pipeline, row, limit=1e-6)


def test_masks_with_their_holes_filled(core, pipeline, row):
    """Maps as large as the latents, so that there is room for holes."""
    change = {
        "map_size": 32,
        "mask_threshold": 0.3,
        "gate_update_until": 0.0,
        "guidance_scale": 1.0,
    }
    row = with_settings(replace(row, width=96, height=96), **change)
    holed, _ = assert_equal_to_the_reference(core, pipeline, row)
    row = with_settings(row, **change, gate_mask_fill_holes=True)
    filled, _ = assert_equal_to_the_reference(core, pipeline, row)
    assert (filled.masks[0][0] < holed.masks[0][0]).any()


@pytest.mark.parametrize("method", ["clora-gated", "freefuse"])
def test_sizes_that_are_not_square(core, pipeline, row, method):
    """Latents of 6x10 have a coarsest level of 2x3, which no whole number divides."""
    row = with_settings(row, guidance_scale=1.0)
    row = replace(row, width=80, height=48, method=method)
    assert_equal_to_the_reference(core, pipeline, row)


@pytest.mark.parametrize("num_concepts", [1, 2, 3])
def test_freefuse(core, pipeline, three, style, num_concepts):
    """The third LoRA has convolutions and time embeddings, which act everywhere."""
    row = replace(three, method="freefuse", loras=(*three.loras[3 - num_concepts :], style))
    expected, _ = assert_equal_to_the_reference(core, pipeline, row)
    areas = expected.masks[0].mean(dim=(1, 2)).tolist()
    assert areas[0] == 0
    assert min(areas[1:]) > 0.5 / num_concepts


@pytest.mark.parametrize(
    "change",
    [
        {"freefuse_steps": 1, "freefuse_negative_bias": 5.0, "freefuse_positive_bias": 7.0},
        {"freefuse_steps": 9, "attention_half": "both", "text_encoder_lora": False},
        {"freefuse_negative_bias": 0.0, "merge_weights": "mean"},
        {"guidance_scale": 1.0, "scheduler": "dpmpp"},
    ],
    ids=str,
)
def test_settings_of_freefuse(core, pipeline, row, change):
    row = with_settings(replace(row, method="freefuse"), **change)
    assert_equal_to_the_reference(core, pipeline, row)


@pytest.mark.parametrize(
    ("method", "regions"),
    [
        ("clora-gated", (LEFT, RIGHT)),
        ("clora-gated", (None, RIGHT)),
        ("clora-gated", (WHOLE, RIGHT)),
        ("freefuse", (LEFT, RIGHT)),
        ("freefuse", (WHOLE, RIGHT)),
    ],
    ids=["restricted", "one free", "placed", "freefuse", "freefuse placed"],
)
def test_regions(core, pipeline, row, method, regions):
    row = with_settings(replace(row, method=method), guidance_scale=1.0)
    assert_equal_to_the_reference(core, pipeline, with_regions(row, *regions))


def test_base_steps_leave_regions_alone(core, pipeline, row):
    row = with_settings(row, gate_base_steps=2, gate_mask_source="base", guidance_scale=1.0)
    assert_equal_to_the_reference(core, pipeline, with_regions(row, LEFT, RIGHT))


@pytest.mark.parametrize(
    ("share", "regions"),
    [("given", (LEFT, RIGHT, None)), ("mean", (None, None, RIGHT)), ("mean", (WHOLE, LEFT, RIGHT))],
    ids=["one free", "two free", "none free"],
)
def test_merge_with_regions(core, pipeline, three, style, share, regions):
    row = replace(with_regions(three, *regions), method="merge")
    row = with_settings(replace(row, loras=(*row.loras, style)), merge_weights=share)
    assert_equal_to_the_reference(core, pipeline, row)


# ---------------------------------------------------------------------------- Stable Diffusion XL


@pytest.fixture(scope="module")
def core_xl(tiny_sdxl_dir):
    return Core(tiny_sdxl_dir)


@pytest.fixture(scope="module")
def pipeline_xl(tiny_sdxl_dir):
    return load_pipeline(tiny_sdxl_dir, dtype=torch.float64)


@pytest.fixture
def row_xl(tiny_sdxl_loras):
    """Two text encoders with LoRAs of their own, so that each part's pooled text differs."""
    row = two_concept_row(
        tiny_sdxl_loras, width=64, height=128, sampler=tiny_sampler(**QUICK), negative_prompt="fox"
    )
    cat = lora_use(tiny_sdxl_loras["kohya_text"], subject="cat", trigger="sks", weight=0.8)
    return replace(row, loras=(cat, row.loras[1]))


@pytest.mark.parametrize("method", ["clora-gated", "freefuse", "merge"])
def test_sdxl(core_xl, pipeline_xl, row_xl, method):
    row = replace(row_xl, method=method)
    if method == "merge":
        row = with_regions(row, LEFT, RIGHT)
    assert_equal_to_the_reference(core_xl, pipeline_xl, row)


# -------------------------------------------------------------------------------- limiting cases


def test_a_whole_region_is_the_plain_method(core, pipeline, row):
    """One part's mask everywhere is that part's own lane, texts and all."""
    row = replace(row, method="merge")
    only_dog = with_regions(replace(row, loras=row.loras[1:]), WHOLE)
    found, _ = core.sample(only_dog)
    plain = replace(row, method="single", loras=row.loras[1:])
    assert relative(found, core.sample(plain)[0]) < 1e-14
    found, _ = core.sample(with_regions(row, None, WHOLE))
    assert relative(found, core.sample(row)[0]) < 1e-14
    assert relative(found, loop_sample(pipeline, row)) < 1e-12


def test_masks_of_the_base_everywhere_are_the_base(core, row, style):
    row = replace(row, method="clora-gated-no-update", loras=(*row.loras, style))
    row = with_settings(row, gate_first_mask="base", gate_masks_until_step=1)
    styles_alone = replace(row, method="merge", loras=(style,))
    assert relative(core.sample(row)[0], core.sample(styles_alone)[0]) < 1e-14


def test_merge_without_regions_has_no_gate(core, row):
    row = replace(row, method="merge")
    assert core.sample(row)[1].evaluations == 4
    assert core.sample(with_regions(row, LEFT, RIGHT))[1].evaluations == 4


# ----------------------------------------------------------------------------- rounding


@pytest.fixture(scope="module")
def rounded(tiny_sd_dir):
    return [Core(tiny_sd_dir, dtype) for dtype in ("float32", "bfloat16")]


@pytest.mark.parametrize("method", ["clora-gated", "freefuse", "merge"])
def test_single_and_half_precision_stay_near(core, rounded, row, method):
    """Without updates, and with masks that rounding cannot move, so that only rounding counts."""
    row = with_settings(with_regions(row, LEFT, RIGHT), gate_update_until=0.0)
    row = replace(row, method=method)
    exact, _ = core.sample(row)
    single, half = (core.sample(row)[0] for core in rounded)
    assert single.dtype == half.dtype == torch.float32
    assert relative(single, exact) < 1e-5  # 6e-7 here
    assert relative(half, exact) < 0.05  # 0.01 here


# ------------------------------------------------------------------- shortcuts and the long way

COMPOSITIONS = {
    "clora-gated": ("clora-gated", (None, None), {}),
    "both halves": ("clora-gated", (LEFT, None), {"attention_half": "both"}),
    "predicted anew": ("clora-gated", (None, None), {"reforward_after_update": True}),
    "without guidance": ("clora-gated", (None, None), {"guidance_scale": 1.0}),
    "base steps": (
        "clora-gated",
        (None, None),
        {"gate_base_steps": 2, "gate_mask_source": "self", "gate_mask_kind": "balanced"},
    ),
    "freefuse": ("freefuse", (None, None), {}),
    "merge": ("merge", (LEFT, RIGHT), {}),
}


@pytest.fixture(scope="module")
def joint(core, tiny_loras):
    """Two rows of every composition and what they give in as few calls as there can be."""
    made = {}
    for name, (method, regions, change) in COMPOSITIONS.items():
        row = two_concept_row(tiny_loras, width=64, height=64, method=method)
        first = with_regions(with_settings(row, **change), *regions)
        cat, dog = first.loras
        second = replace(first, seed=8, loras=(replace(cat, weight=0.5), dog))
        made[name] = ([first, second], *core.sample([first, second]))
    return made


@pytest.mark.parametrize(
    "limits", [{"max_lanes": 3}, {"max_lanes": 1, "graph_budget_bytes": 1}], ids=str
)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_chunks_and_two_passes_change_nothing(core, joint, name, limits):
    rows, expected, expected_trace = joint[name]
    found, trace = core.sample(rows, **limits)
    assert relative(found, expected) < 1e-12
    for ours, theirs in zip(trace.losses, expected_trace.losses, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["both halves", "base steps", "merge"])
def test_rows_in_a_batch_are_as_alone(core, joint, name):
    rows, together, _ = joint[name]
    for index, row in enumerate(rows):
        assert relative(together[index], core.sample(row)[0][0]) < 1e-12


def test_a_gated_update_in_two_passes_counts_one_more_pass(core, joint):
    rows, _, expected_trace = joint["clora-gated"]
    _, trace = core.sample(rows, graph_budget_bytes=1)
    assert trace.evaluations == expected_trace.evaluations + 1


def test_a_gated_row_costs_little_more_than_its_base():
    config = SamplerConfig()
    base = unet_evaluations("base", 2, config)
    for num_concepts in (2, 5):
        # One more for the first masks; the maps of updates come with the predictions.
        assert unet_evaluations("clora-gated", num_concepts, config) == base + 1
        assert unet_evaluations("freefuse", num_concepts, config) == base + 2 * 9 + 1
        assert first_phase_evaluations("freefuse", num_concepts, config) == 2 * 9 + 1
        assert unet_evaluations("merge", num_concepts, config) == base


# ------------------------------------------------------------------------- a shared first phase


@pytest.fixture
def samples_through(core, monkeypatch):
    """Count samples through the UNet."""
    core.model.map_layers()  # measured once, by a call that is nobody's sample
    counted = []
    run_unet = core.model.run_unet

    def counting(latents, *args):
        counted.append(len(latents))
        return run_unet(latents, *args)

    monkeypatch.setattr(core.model, "run_unet", counting)
    return counted


def test_rows_that_differ_in_their_loras_share_the_first_phase(core, row, style, samples_through):
    row = replace(row, method="freefuse")
    cat, dog = row.loras
    triggered = replace(cat, uri=dog.uri, digest=dog.digest, trigger="zwx plushie")
    rows = [
        row,
        replace(row, loras=(replace(cat, weight=0.3), dog)),
        replace(row, loras=(triggered, dog, style)),
        replace(row, seed=8),
    ]
    together, trace = core.sample(rows)
    own, phase = 2 * 2, 2 + 1
    assert sum(samples_through) == len(rows) * own + 2 * phase  # of two different first phases
    assert trace.evaluations == own + phase  # what one row would take alone
    for index, each in enumerate(rows):
        assert relative(together[index], core.sample(each)[0][0]) < 1e-12


def test_rows_that_differ_in_their_words_do_not(core, row, samples_through):
    row = replace(row, method="freefuse")
    swapped = replace(row, loras=row.loras[::-1])
    rows = [row, replace(row, prompt="a cat on a dog"), replace(row, negative_prompt="a"), swapped]
    together, _ = core.sample(rows)
    assert sum(samples_through) == len(rows) * (2 * 2 + 2 + 1)
    for index, each in enumerate(rows):
        assert relative(together[index], core.sample(each)[0][0]) < 1e-12
