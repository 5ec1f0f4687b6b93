"""The composer: order, failures as values, rows apart from their batch, a model left alone."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row, with_adapter

from clora_core.composer import Composer
from clora_core.diffusion.model import load_base_model
from clora_core.lora.cache import LoraCache
from clora_core.memory import default_budget_bytes, graph_bytes
from clora_core.recipe.cost import unet_evaluations
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Region
from clora_core.results import ComposedImage, RowFailure
from clora_core.sampling.lanes import lane_batch
from clora_core.sampling.row_lanes import row_lanes

QUICK = {"num_steps": 2, "guide_until_step": 1, "num_refine_updates": 1}
BUDGET = 2**30


def composer_of(model, **limits):
    return Composer(model, LoraCache(2**26), **{"graph_budget_bytes": BUDGET, **limits})


@pytest.fixture(scope="module")
def model(tiny_sd_dir):
    return load_base_model(tiny_sd_dir)


@pytest.fixture(scope="module")
def half_model(tiny_sd_dir):
    return load_base_model(tiny_sd_dir, dtype="bfloat16")


@pytest.fixture(scope="module")
def composer(model):
    return composer_of(model)


@pytest.fixture(scope="module")
def rows(tiny_loras):
    """Eight rows that go in one batch and differ in all that may differ in it."""
    row = two_concept_row(tiny_loras, width=64, height=64, sampler=tiny_sampler(**QUICK))
    cat, dog = row.loras
    style = lora_use(tiny_loras["kohya_text"], kind="style", weight=0.5)
    locon = lora_use(tiny_loras["kohya_locon"], subject="dog", trigger=None, weight=0.8)
    pieces = replace(cat, subject="plushie", trigger="brownshie blackcat")
    return [
        row,
        replace(row, seed=8),
        replace(row, loras=(cat, dog, style)),
        replace(row, loras=(locon, cat)),
        replace(row, prompt="a plushie and a dog", loras=(pieces, dog), seed=9),
        replace(row, negative_prompt="a photo of a bird"),
        replace(
            row, loras=(cat, replace(dog, region=Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace")))
        ),
        replace(row, prompt="a dog on a beach with two cats", seed=10),
    ]


@pytest.fixture(scope="module")
def alone(composer, rows):
    """Every one of them made alone."""
    made = [composer.compose([row])[0] for row in rows]
    assert all(isinstance(result, ComposedImage) for result in made)
    return made


def grey_levels_apart(one, other):
    return int(np.abs(one.image.astype(int) - other.image.astype(int)).max())


# ------------------------------------------------------------------------- one row, what comes out


def test_an_image_is_rgb_of_the_rows_size(composer, rows):
    [made] = composer.compose([replace(rows[0], width=128)])
    assert made.image.shape == (64, 128, 3)
    assert made.image.dtype == np.uint8
    assert made.attention is None


def test_diagnostics_tell_how_it_went(alone, rows):
    told = alone[0].diagnostics
    assert len(told.losses) == 2
    assert all(np.isfinite(told.losses))
    assert len(told.mask_coverage) == 2
    assert all(0 < share <= 1 for share in told.mask_coverage)
    assert 0 <= told.mask_overlap <= 1
    assert told.unet_evaluations == unet_evaluations("clora", 2, rows[0].sampler)
    assert told.seconds > 0
    assert (told.batch_size, told.batch_slot, told.retried_in_fp32) == (1, 0, False)


def test_methods_without_masks_have_no_mask_figures(composer, rows):
    [made] = composer.compose([replace(rows[0], method="merge")])
    told = made.diagnostics
    assert (told.losses, told.mask_coverage, told.mask_overlap) == ((), (), None)


def test_maps_and_masks_come_on_request(composer, rows):
    row = replace(rows[0], width=128)
    [made] = composer.compose([row], keep_maps=True)
    assert made.attention.maps.shape == (2, 2, 4, 8)
    assert made.attention.maps.dtype == np.float32
    assert made.attention.masks.shape == (2, 3, 4, 8)
    assert made.attention.masks.dtype == bool
    assert made.attention.masks.any(axis=1).all()
    [without] = composer.compose([row])
    assert grey_levels_apart(made, without) == 0


def test_leakage_is_that_of_the_kept_maps_and_masks(composer, rows):
    [made] = composer.compose(rows[:1], keep_maps=True)
    maps, masks = made.attention.maps, made.attention.masks[:, 1:]
    shares = (maps * ~masks).sum(axis=(2, 3)) / maps.sum(axis=(2, 3))
    assert made.diagnostics.mask_leakage == pytest.approx(shares.mean(axis=0).tolist(), abs=1e-5)


def test_the_image_is_the_autoencoders_of_the_latents(tiny_sd_dir, rows, alone):
    core = Core(tiny_sd_dir, "float32")
    latents, _ = core.sample(rows[0])
    with torch.no_grad():
        pixels = core.model.vae.decode(latents / core.model.vae.config.scaling_factor).sample[0]
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    assert np.abs(alone[0].image - expected).max() < 1.01


def test_rows_of_two_kinds_share_no_batch_and_the_message_says_why(model, rows):
    merged = replace(rows[1], method="merge", width=128)
    lanes = [row_lanes(model, row) for row in (rows[0], rows[1], merged)]
    with pytest.raises(ValueError, match=r"of 2 \(method, width_px, num_variants\); group rows"):
        lane_batch(model, lanes, [], [])
    with pytest.raises(ValueError, match=r"of 0 \(no rows\)"):
        lane_batch(model, [], [], [])


def test_nothing_comes_of_nothing(composer):
    assert composer.compose([]) == []


# ------------------------------------------------------------------------------ order and failures


def test_any_mix_of_rows_comes_back_in_order(composer, rows, alone):
    other_size = replace(rows[0], width=128)
    merged = replace(rows[1], method="merge")
    one_concept = replace(rows[0], loras=rows[0].loras[:1])
    mix = [merged, rows[0], other_size, one_concept, rows[1], merged, replace(merged, seed=1)]
    made = composer.compose(mix)
    assert [result.image.shape[1] for result in made] == [64, 64, 128, 64, 64, 64, 64]
    assert grey_levels_apart(made[1], alone[0]) <= 1
    assert grey_levels_apart(made[4], alone[1]) <= 1
    assert grey_levels_apart(made[0], made[5]) <= 1
    assert grey_levels_apart(made[0], made[6]) > 2
    assert [r.diagnostics.batch_size for r in made] == [3, 2, 1, 1, 2, 3, 3]
    assert [r.diagnostics.batch_slot for r in made] == [0, 0, 0, 0, 1, 1, 2]


@pytest.fixture
def bad_rows(rows, tiny_loras, tmp_path):
    """Rows that cannot be made, and what is said of them."""
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_loras["style"].read_bytes()[:1000])
    cat, dog = rows[0].loras
    broken = replace(cat, uri=str(cut), digest="broken")
    short = rows[0].sampler.model_copy(update={"long_prompts": "refuse"})
    far_off = replace(dog, region=Region(box=(0.9, 0.0, 0.1, 1.0)))
    return [
        (replace(rows[0], prompt="a cat"), "prompt", "PromptError", "'dog'"),
        (
            replace(rows[0], prompt="a " * 90 + "cat and dog", sampler=short),
            "prompt",
            "LongTextError",
            "93 tokens, 2 chunks, and the text encoder reads 75 tokens at once",
        ),
        (replace(rows[0], loras=(broken, dog)), "lora", "LoraFileError", "cut.safetensors"),
        (replace(rows[0], width=72), "prompt", "PromptError", "multiples of 16"),
        (replace(rows[0], method="single"), "sample", "CompositionError", "the row has 2"),
        (replace(rows[0], loras=(cat, far_off)), "prompt", "PromptError", "region box"),
        (replace(rows[0], method="mix"), "prompt", "PromptError", "no method 'mix'"),
    ]


def test_a_bad_row_is_a_value_and_its_neighbours_are_made(composer, rows, alone, bad_rows):
    mixed = [rows[0]]
    for bad, *_ in bad_rows:
        mixed += [bad, rows[1]]
    made = composer.compose(mixed)
    assert grey_levels_apart(made[0], alone[0]) <= 1
    for failure, (_, stage, error, words) in zip(made[1::2], bad_rows, strict=True):
        assert isinstance(failure, RowFailure)
        assert (failure.stage, failure.error) == (stage, error)
        assert words in failure.message
    assert all(grey_levels_apart(result, alone[1]) <= 1 for result in made[2::2])


def test_a_map_size_that_the_model_lacks_is_the_rows_own_fault(composer, rows):
    made = composer.compose([replace(rows[0], sampler=tiny_sampler(**QUICK, map_size=20)), rows[0]])
    assert isinstance(made[0], RowFailure)
    assert "set map_size to one of them" in made[0].message
    assert isinstance(made[1], ComposedImage)


def spoiled(monkeypatch, spoil):
    """Let ``spoil`` change the latents that each step of the solver gives."""
    step = DDIMScheduler.step

    def spoiled_step(*args):
        result = step(*args)
        spoil(result.prev_sample)
        return result

    monkeypatch.setattr(DDIMScheduler, "step", spoiled_step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_a_failure_of_that_row(composer, rows, monkeypatch, value):
    def spoil(latents):
        latents[1, 0, 2, 2] = value

    spoiled(monkeypatch, spoil)
    first, second, third = composer.compose(rows[:3])
    assert (second.stage, second.error) == ("decode", "NonFiniteImageError")
    assert "not finite; lower step_size" in second.message
    assert isinstance(first, ComposedImage)
    assert isinstance(third, ComposedImage)


def test_a_flat_image_is_a_failure(composer, model, rows, monkeypatch):
    decode = model.vae.decode
    level = 2 / 255
    flat = torch.full((1, 3, 64, 64), 7 * level - 1)
    slightly = flat + level * torch.eye(64)
    blanks = iter([None, flat, slightly])

    def blank_or_decoded(latents):
        blank = next(blanks)
        return decode(latents) if blank is None else SimpleNamespace(sample=blank)

    monkeypatch.setattr(model.vae, "decode", blank_or_decoded)
    first, second, third = composer.compose(rows[:3])
    assert isinstance(first, ComposedImage)
    assert (second.stage, second.error) == (third.stage, third.error)
    assert "one flat colour; try another seed" in second.message


def test_half_precision_tries_a_broken_row_again_in_single(half_model, rows, monkeypatch):
    def spoil(latents):
        if half_model.dtype == torch.bfloat16:
            latents[0] = float("nan")

    spoiled(monkeypatch, spoil)
    before = snapshot(half_model)
    again, neighbour = composer_of(half_model).compose(rows[:2])
    assert again.diagnostics.retried_in_fp32
    assert not neighbour.diagnostics.retried_in_fp32
    assert_as_before(half_model, before)


def test_half_precision_that_stays_broken_is_a_failure(half_model, rows, monkeypatch):
    spoiled(monkeypatch, lambda latents: latents.fill_(float("nan")))
    [failure] = composer_of(half_model).compose(rows[:1])
    assert failure.error == "NonFiniteImageError"
    assert half_model.dtype == torch.bfloat16


# -------------------------------------------------------------------------------- independence


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_row_feels_its_batch(model, rows, alone, data):
    """Batches are permuted, split and padded with repetitions; each image stays what it was."""
    order = data.draw(st.lists(st.integers(0, 7), min_size=2, max_size=8))
    cut = data.draw(st.integers(0, len(order)))
    max_lanes = data.draw(st.sampled_from([None, None, 4, 7]))
    worker = composer_of(model, max_lanes=max_lanes)
    made = [
        result
        for part in (order[:cut], order[cut:])
        for result in worker.compose([rows[index] for index in part])
    ]
    for result, index in zip(made, order, strict=True):
        assert grey_levels_apart(result, alone[index]) <= 2
        assert result.diagnostics.losses == pytest.approx(alone[index].diagnostics.losses, rel=1e-4)
        assert result.diagnostics.unet_evaluations >= alone[index].diagnostics.unet_evaluations


@pytest.fixture(scope="module")
def kinds_of_rows(rows):
    """Rows of many kinds, several of which go in one batch."""
    sampler = tiny_sampler(**QUICK, freefuse_steps=1)
    left = Region(box=(0.0, 0.0, 0.5, 1.0))
    plain, placed = rows[2], rows[6]
    gated = replace(plain, method="clora-gated", sampler=sampler)
    own_place = replace(plain.loras[0], region=left)
    return [
        plain,
        gated,
        replace(rows[3], method="clora-gated", sampler=sampler),
        replace(placed, method="clora-gated", sampler=sampler),
        replace(plain, method="freefuse", sampler=sampler),
        replace(rows[0], method="freefuse", sampler=sampler),
        replace(rows[1], method="freefuse", sampler=sampler),
        replace(plain, method="merge"),
        replace(placed, method="merge"),
        replace(rows[3], loras=(rows[3].loras[0], own_place), method="merge"),
        replace(plain, method="composite"),
    ]


@pytest.fixture(scope="module")
def exact_composer(tiny_sd_dir):
    """In float64: a mask does not turn over by rounding."""
    return composer_of(load_base_model(tiny_sd_dir, dtype="float64"))


@pytest.fixture(scope="module")
def kinds_alone(exact_composer, kinds_of_rows):
    return [exact_composer.compose([row])[0] for row in kinds_of_rows]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(order=st.lists(st.integers(0, 10), min_size=3, max_size=7))
def test_no_row_feels_rows_of_other_kinds(exact_composer, kinds_of_rows, kinds_alone, order):
    """Gated and plain rows, with regions and without, in one call."""
    made = exact_composer.compose([kinds_of_rows[index] for index in order])
    for result, index in zip(made, order, strict=True):
        alone = kinds_alone[index]
        assert grey_levels_apart(result, alone) <= 1  # where half a level is rounded
        losses = alone.diagnostics.losses
        assert result.diagnostics.losses == pytest.approx(losses, rel=1e-10)
        assert result.diagnostics.mask_coverage == pytest.approx(alone.diagnostics.mask_coverage)
        assert result.diagnostics.unet_evaluations == alone.diagnostics.unet_evaluations


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-5)])
def test_a_row_alone_and_in_a_batch_of_eight_has_the_same_latents(tiny_sd_dir, rows, dtype, limit):
    core = Core(tiny_sd_dir, dtype)
    together, _ = core.sample(rows)
    for index in (4, 6):
        assert relative(together[index], core.sample(rows[index])[0][0]) < limit


# ------------------------------------------------------------------------------------- memory


def test_out_of_memory_halves_the_lanes_and_gives_the_same_images(model, rows, alone, monkeypatch):
    sizes = []
    run_unet = model.run_unet

    def small_machine(latents, *args):
        sizes.append(len(latents))
        if len(latents) > 5:
            raise torch.OutOfMemoryError("a fake of no memory")
        return run_unet(latents, *args)

    monkeypatch.setattr(model, "run_unet", small_machine)
    worker = composer_of(model)
    made = worker.compose(rows[:3])
    for result, expected in zip(made, alone, strict=False):
        assert grey_levels_apart(result, expected) <= 1
    assert max(sizes[-10:]) <= 5
    tried = len(sizes)
    worker.compose([replace(row, method="composite") for row in rows[:3]])
    assert max(sizes[tried:]) <= 5  # what was learnt is kept


def test_a_machine_too_small_for_one_lane_is_the_machines_fault(model, rows, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("a fake of no memory")

    monkeypatch.setattr(model, "run_unet", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        composer_of(model).compose(rows[:2])


def test_the_budget_decides_whether_the_gradient_takes_two_passes(model, rows, alone):
    [two_passes] = composer_of(model, graph_budget_bytes=1).compose(rows[:1])
    told, joint = two_passes.diagnostics, alone[0].diagnostics
    assert told.unet_evaluations == joint.unet_evaluations + 2 * 3
    assert grey_levels_apart(two_passes, alone[0]) <= 1


def test_by_default_the_budget_is_a_share_of_what_is_free(model, rows, alone):
    assert default_budget_bytes(torch.device("cpu")) > 2**20
    [made] = Composer(model, LoraCache(2**26)).compose(rows[:1])
    assert made.diagnostics.unet_evaluations == alone[0].diagnostics.unet_evaluations


def test_a_graphs_bytes_are_those_that_autograd_saves():
    x, weight = torch.ones(10, 6, requires_grad=True), torch.ones(6, 8)
    assert graph_bytes(lambda: (x @ weight) ** 2, [weight]) == 10 * 8 * 4
    assert graph_bytes(lambda: (x @ weight) ** 2, []) == 10 * 8 * 4 + 6 * 8 * 4
    assert graph_bytes(lambda: x.detach() + 1, []) == 0


def test_a_graph_grows_with_the_image(model):
    def measured(side):
        latents = torch.zeros(1, 4, side, side, requires_grad=True)
        text = torch.zeros(1, 77, 32)
        return graph_bytes(lambda: model.unet(latents, 1, text), model.unet.parameters())

    assert 0 < measured(8) < measured(16) / 2 < measured(32) / 4


# --------------------------------------------------------------------------- the model stays alone


def snapshot(model):
    modules = {**model.components, "vae": model.vae}
    weights = {
        f"{name}.{key}": tensor.clone()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    return weights, dict(model.unet.attn_processors)


def assert_as_before(model, before):
    weights, processors = before
    after, processors_after = snapshot(model)
    assert after.keys() == weights.keys()
    for name, tensor in after.items():
        assert tensor.dtype == weights[name].dtype
        assert torch.equal(tensor, weights[name])
    assert processors_after == processors
    for module in (*model.components.values(), model.vae):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())
        for part in module.modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_bit_for_bit(composer, model, rows, method):
    row = replace(rows[0], method=method, sampler=tiny_sampler(num_steps=1, guide_until_step=1))
    concepts = row.loras[: METHODS[method].max_concepts]
    styles = rows[2].loras[2:] * (METHODS[method].num_styles or 0)
    row = with_adapter(replace(row, loras=(*concepts, *styles)))
    before = snapshot(model)
    [made] = composer.compose([row])
    assert isinstance(made, ComposedImage)
    assert_as_before(model, before)


@pytest.mark.parametrize("method", ["merge", "freefuse", "clora-gated"])
def test_regions_leave_the_model_bit_for_bit(composer, model, rows, method):
    before = snapshot(model)
    [made] = composer.compose([replace(rows[6], method=method)])
    assert isinstance(made, ComposedImage)
    assert_as_before(model, before)


@pytest.mark.parametrize(
    ("method", "failing_call", "budget"),
    [
        *(("clora", call, budget) for call in (1, 3) for budget in (BUDGET, 1)),
        ("clora-gated", 1, 1),  # the measured graph
        ("clora-gated", 3, BUDGET),  # the first update
        ("freefuse", 1, BUDGET),  # the first phase
        ("freefuse", 4, BUDGET),  # the sampling after it
    ],
)
def test_an_exception_on_the_way_leaves_the_model_bit_for_bit(
    model, rows, monkeypatch, method, failing_call, budget
):
    row = replace(rows[0], method=method, sampler=tiny_sampler(**QUICK, freefuse_steps=2))
    calls = []
    call = model.unet.conv_in.forward

    def fails(*args):
        calls.append(1)
        if len(calls) == failing_call:
            raise ZeroDivisionError
        return call(*args)

    before = snapshot(model)
    monkeypatch.setattr(model.unet.conv_in, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        composer_of(model, graph_budget_bytes=budget).compose([row])
    monkeypatch.undo()
    assert_as_before(model, before)


def test_an_exception_behind_the_map_layers_leaves_the_gradient_mode(model, rows, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError

    before = snapshot(model)
    monkeypatch.setattr(model.unet.conv_out, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        composer_of(model).compose(rows[:1])
    monkeypatch.undo()
    assert_as_before(model, before)


def test_a_failed_encoding_leaves_the_text_encoder(model, rows, monkeypatch):
    def fails(*_, **__):
        raise ZeroDivisionError

    before = snapshot(model)
    monkeypatch.setattr(model.towers[0].encoder, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        composer_of(model).compose(rows[2:3])
    monkeypatch.undo()
    assert_as_before(model, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_image(composer, rows, alone, mode):
    with mode():
        [made] = composer.compose(rows[:1])
    assert grey_levels_apart(made, alone[0]) == 0


# --------------------------------------------------------------------------------- LoRA files


def test_a_file_is_read_once_for_many_rows(model, rows):
    cache = LoraCache(2**26)
    worker = Composer(model, cache, graph_budget_bytes=BUDGET)
    worker.compose([replace(row, method="merge") for row in rows[:3]])
    assert cache.stats.misses == 3
    worker.compose([replace(rows[0], method="merge")])
    assert cache.stats.misses == 3
    assert cache.stats.hits >= 2


def test_a_second_cache_on_the_device_changes_no_pixel_and_is_sent_each_lora_once(
    model, rows, alone
):
    host, device = LoraCache(2**26), LoraCache(2**26)
    worker = Composer(model, host, device_loras=device, graph_budget_bytes=BUDGET)
    for _ in range(2):
        [made] = worker.compose(rows[:1])
        assert grey_levels_apart(made, alone[0]) == 0
    num_loras = len(rows[0].loras)
    assert (host.stats.misses, host.stats.hits) == (num_loras, 0)
    assert (device.stats.misses, device.stats.hits) == (num_loras, num_loras)


def test_out_of_memory_takes_the_loras_from_the_device_before_it_halves_the_lanes(
    model, rows, alone, monkeypatch
):
    host, device = LoraCache(2**26), LoraCache(2**26)
    worker = Composer(model, host, device_loras=device, graph_budget_bytes=BUDGET)
    sizes = []
    run_unet = model.run_unet

    def full_machine(latents, *args):
        sizes.append(len(latents))
        if device.stats.bytes:
            raise torch.OutOfMemoryError("a fake of no memory")
        return run_unet(latents, *args)

    monkeypatch.setattr(model, "run_unet", full_machine)
    [made] = worker.compose(rows[:1])
    assert grey_levels_apart(made, alone[0]) == 0
    assert sizes[1] == sizes[0]  # the same call again, as large as before
    assert device.stats.bytes == 0


def test_a_cache_smaller_than_the_batch_still_makes_it(model, rows, alone):
    cache = LoraCache(1)
    made = Composer(model, cache, graph_budget_bytes=BUDGET).compose(rows[:3])
    assert cache.stats.evictions > 0
    for result, expected in zip(made, alone, strict=False):
        assert grey_levels_apart(result, expected) <= 1
