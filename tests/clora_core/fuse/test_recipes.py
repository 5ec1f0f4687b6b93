"""Whole recipes on a tiny Stable Diffusion in float64, against dense weights and plain loops."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from oracles.core_runs import Core
from oracles.tiny_rows import lora_use, tiny_sampler
from torch.func import functional_call

from clora_core.diffusion.noise import TrainingNoise, initial_noise
from clora_core.diffusion.schedulers import make_solver
from clora_core.fuse import custom_diffusion, mix_of_show, ziplora
from clora_core.fuse.captions import CAPTIONS
from clora_core.fuse.ingredient import Ingredient
from clora_core.fuse.recipes import fuse
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import CompositionError, FusionError
from clora_core.recipe.methods import METHODS, Mix

PROMPTS = [["photo of a sks cat", "sks cat"], ["photo of a zwx dog", "zwx dog"]]
WORDS = [2, 2]


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir, "float64")


def ingredients(core, loras, *names):
    triggers = ("sks", "zwx", "bnh")
    subjects = ("cat", "dog", "bird")
    return [
        Ingredient(
            lora_use(loras[name], subject=subject, trigger=trigger, weight=weight),
            core.factors(loras[name]),
        )
        for name, subject, trigger, weight in zip(
            names, subjects, triggers, (1.0, 0.7, 1.0), strict=False
        )
    ]


def delta(factor):
    down, up = factor.down.flatten(1).double(), factor.up.flatten(1).double()
    return up @ down * factor.scale


def deltas(ingredient):
    """Return every layer's dense delta, with the row's weight."""
    return {
        (component, name): delta(factor) * ingredient.lora.weight
        for component, layers in ingredient.factors.components.items()
        for name, factor in layers.items()
    }


@contextmanager
def changed(core, changes):
    """Hold the base weights with dense deltas on them."""
    before = {}
    try:
        for (component, name), change in changes.items():
            weight = core.model.components[component].get_submodule(name).weight
            before[weight] = weight.detach().clone()
            weight.add_(change.reshape(weight.shape))
        yield
    finally:
        for weight, value in before.items():
            weight.copy_(value)


@contextmanager
def seen(core, layers):
    """Keep everything that layers see."""
    kept = {layer: [] for layer in layers}

    def keep(layer):
        def hook(module, args):
            x = args[0]
            if isinstance(module, torch.nn.Conv2d):
                x = torch.nn.functional.unfold(
                    x, module.kernel_size, module.dilation, module.padding, module.stride
                ).mT
            kept[layer].append(x.detach().flatten(end_dim=-2))

        return hook

    handles = [
        core.model.components[c].get_submodule(n).register_forward_pre_hook(keep((c, n)))
        for c, n in layers
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def minimum(inputs, wanted, cutoff):
    """Return the delta nearest to zero that minimises the sum of squares, by singular values."""
    y = torch.cat([x @ own.mT for x, own in zip(inputs, wanted, strict=True)])
    found = torch.linalg.lstsq(torch.cat(inputs), y, rcond=cutoff**0.5, driver="gelsd")
    return found.solution.mT


def hidden_states(core, prompt):
    tower = core.model.towers[0]
    ids = tower.tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    return tower.encoder(ids)[0], len(tower.tokenizer(prompt).input_ids) - 1


def sampled(core, text, num_steps):
    config = SamplerConfig(
        scheduler="dpmpp", num_steps=num_steps, guide_until_step=0, refine_steps=()
    )
    solver = make_solver(core.model.scheduler_config, config, core.model.device)
    side = core.model.default_size_px
    latents = initial_noise(core.model, [0], side, side)
    for t in solver.timesteps:
        noise = core.model.unet(latents, t, text, return_dict=False)[0]
        latents = solver.step(noise, t, latents).prev_sample


@torch.no_grad()
def gradient_fusion(core, parts, cutoff, num_steps):
    """Return gradient fusion in its published order, every input kept and weights changed."""
    own = [deltas(part) for part in parts]
    layers = sorted({layer for each in own for layer in each})
    zero = {
        layer: torch.zeros_like(
            core.model.components[layer[0]].get_submodule(layer[1]).weight
        ).flatten(1)
        for layer in layers
    }
    own = [zero | each for each in own]
    texts = [layer for layer in layers if layer[0] == "text_encoder"]
    words = [layer for layer in layers if ".attn2.to_k" in layer[1] or ".attn2.to_v" in layer[1]]
    others = [layer for layer in layers if layer not in {*texts, *words}]
    fused = {}
    tower = core.model.towers[0]
    inputs = {layer: [] for layer in texts}
    for each, prompts in zip(own, PROMPTS, strict=True):
        with changed(core, {layer: each[layer] for layer in texts}), seen(core, texts) as kept:
            for prompt in prompts:
                tower.encoder(tower.tokenizer(prompt, return_tensors="pt").input_ids)
        for layer in texts:
            inputs[layer].append(torch.cat(kept[layer]))
    for layer in texts:
        fused[layer] = minimum(inputs[layer], [each[layer] for each in own], cutoff)
    features = []
    with changed(core, fused):
        for prompts, num_words in zip(PROMPTS, WORDS, strict=True):
            found = [hidden_states(core, prompt) for prompt in prompts]
            features.append(torch.cat([h[0, end - num_words : end + 1] for h, end in found]))
    for layer in words:
        fused[layer] = minimum(features, [each[layer] for each in own], cutoff)
    inputs = {layer: [] for layer in others}
    for each, prompts in zip(own, PROMPTS, strict=True):
        with changed(core, fused | {layer: each[layer] for layer in others}):
            text, _ = hidden_states(core, prompts[0])
            with seen(core, others) as kept:
                sampled(core, text, num_steps)
        for layer in others:
            inputs[layer].append(torch.cat(kept[layer]))
    for layer in others:
        fused[layer] = minimum(inputs[layer], [each[layer] for each in own], cutoff)
    return fused


@pytest.mark.parametrize(
    "names", [("peft_attention", "peft_text"), ("kohya_locon", "kohya_text")], ids="+".join
)
def test_gradient_fusion_is_the_published_one_with_every_input_kept(core, tiny_loras, names):
    parts = ingredients(core, tiny_loras, *names)
    config = tiny_sampler(mix_of_show_steps=2, fuse_cutoff=0.01)
    adapter = mix_of_show.fuse(core.model, parts, config)
    expected = gradient_fusion(core, parts, 0.01, 2)
    found = {
        (component, name): factor
        for component, layers in adapter.factors.components.items()
        for name, factor in layers.items()
    }
    assert found.keys() == expected.keys()
    for layer, factor in found.items():
        assert torch.allclose(delta(factor), expected[layer], atol=1e-6), layer
    assert 0 < adapter.final_loss < 1


def test_gradient_fusion_refuses_layers_too_wide_by_name(core, tiny_loras, monkeypatch):
    parts = ingredients(core, tiny_loras, "kohya_locon", "peft_attention")
    monkeypatch.setattr(mix_of_show, "MAX_WIDTH", 200)
    with pytest.raises(FusionError, match=r"up to 200 inputs.*unet\.down_blocks.*conv1"):
        mix_of_show.fuse(core.model, parts, tiny_sampler())


def test_custom_diffusion_keeps_words_and_adds_the_other_layers_up(core, tiny_loras):
    parts = ingredients(core, tiny_loras, "peft_attention", "peft_text")
    config = tiny_sampler(fuse_cutoff=0.0)
    adapter = custom_diffusion.fuse(core.model, parts, config)
    own = [deltas(part) for part in parts]
    others = {}
    for component, layers in adapter.factors.components.items():
        for name, factor in layers.items():
            if not name.endswith((".attn2.to_k", ".attn2.to_v")):
                expected = sum(each.get((component, name), 0.0) for each in own)
                assert torch.allclose(delta(factor), expected, atol=1e-9)
                if component != "unet":
                    others[component, name] = expected
    with torch.no_grad(), changed(core, others):
        features = []
        for words in ("sks cat", "zwx dog"):
            found = [hidden_states(core, text) for text in (words, f"a photo of {words}")]
            features.append(torch.cat([hidden[0, end - 2 : end + 1] for hidden, end in found]))
    for name in adapter.factors.of("unet"):
        if name.endswith((".attn2.to_k", ".attn2.to_v")):
            merged = delta(adapter.factors.of("unet")[name])
            for words, each in zip(features, own, strict=True):
                assert torch.allclose(words @ merged.mT, words @ each["unet", name].mT, atol=1e-6)
    assert adapter.final_loss < 1e-12


def test_the_standard_captions_are_two_hundred_different_ones():
    assert len(set(CAPTIONS)) == 200


def images(core, index):
    generator = np.random.default_rng(index)
    side = core.model.default_size_px
    return [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2)]


def dense_ziplora(core, parts, config):
    """Return ZipLoRA's losses and columns by a plain loop over dense weights."""
    model, unet = core.model, core.model.unet
    own = [deltas(part) for part in parts]
    projections = sorted(
        {
            layer
            for each in own
            for layer in each
            if layer[0] == "unet" and layer[1].endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))
        }
    )
    weights = {f"{name}.weight": unet.get_submodule(name).weight for _, name in projections}
    columns = {
        name: torch.ones(
            2, weights[f"{name}.weight"].shape[1], dtype=torch.float64
        ).requires_grad_()
        for _, name in projections
    }
    latents = []
    for index in range(2):
        pixels = torch.from_numpy(np.stack(images(core, index))).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            latents.append(
                model.vae.encode(pixels.double()).latent_dist.mode()
                * model.vae.config.scaling_factor
            )
    texts, merged_texts = [], []
    summed = {}
    for each in own:
        for layer, change in each.items():
            if layer not in projections:
                summed[layer] = summed.get(layer, 0.0) + change
    in_text = {layer: change for layer, change in summed.items() if layer[0] != "unet"}
    with torch.no_grad():
        for each, prompt in zip(own, ("a sks cat", "a zwx dog"), strict=True):
            with changed(core, {k: v for k, v in each.items() if k[0] != "unet"}):
                texts.append(hidden_states(core, prompt)[0])
            with changed(core, in_text):
                merged_texts.append(hidden_states(core, prompt)[0])
    training = TrainingNoise(model)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(list(columns.values()), lr=config.ziplora_learning_rate)
    losses = []
    for step in range(config.ziplora_steps):
        chosen = torch.cat([each[step % 2][None] for each in latents])
        noise = torch.randn(chosen.shape, generator=generator).double()
        t = torch.randint(1000, (), generator=generator)
        noisy = training.add(chosen, noise, t)
        errors = 0.0
        for index, each in enumerate(own):
            with torch.no_grad(), changed(core, {k: v for k, v in each.items() if k[0] == "unet"}):
                target = unet(noisy[index : index + 1], t, texts[index], return_dict=False)[0]
            merged = {}
            for layer in projections:
                _, name = layer
                merged[f"{name}.weight"] = weights[f"{name}.weight"] + sum(
                    part[layer] * columns[name][side][None]
                    for side, part in enumerate(own)
                    if layer in part
                )
            rest = {k: v for k, v in summed.items() if k[0] == "unet"}
            for (_, name), change in rest.items():
                weight = unet.get_submodule(name).weight
                merged[f"{name}.weight"] = weight + change.reshape(weight.shape)
            predicted = functional_call(
                unet,
                merged,
                (noisy[index : index + 1], t, merged_texts[index]),
                {"return_dict": False},
            )[0]
            errors = errors + ((predicted - target) ** 2).mean()
        overlap = sum((each[0] * each[1]).abs().mean() for each in columns.values())
        loss = errors + config.ziplora_overlap * overlap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, columns


def test_ziplora_fits_as_a_plain_loop_over_dense_weights(core, tiny_loras):
    parts = ingredients(core, tiny_loras, "peft_attention", "kohya_text")
    config = tiny_sampler(ziplora_steps=4)
    adapter = fuse("ziplora", core.model, parts, config, lambda index: images(core, index))
    losses, columns = dense_ziplora(core, parts, config)
    assert adapter.losses == pytest.approx(losses, rel=1e-6)
    assert adapter.final_loss == adapter.losses[-1]
    own = [deltas(part) for part in parts]
    for name, each in columns.items():
        expected = sum(
            part[("unet", name)] * each[side].detach()[None]
            for side, part in enumerate(own)
            if ("unet", name) in part
        )
        factor = adapter.factors.of("unet")[name]
        assert torch.allclose(delta(factor), expected, atol=1e-6)
        assert factor.rank == sum(
            part.factors.of("unet")[name].rank for part in parts if name in part.factors.of("unet")
        )


def test_ziplora_that_diverges_says_so(core, tiny_loras):
    parts = ingredients(core, tiny_loras, "peft_attention", "peft_attention_b")
    config = tiny_sampler(ziplora_steps=3, ziplora_learning_rate=1e200)
    with pytest.raises(FusionError, match=r"diverged at step \d of 3.*ziplora_learning_rate"):
        ziplora.fuse(core.model, parts, config, lambda index: images(core, index))


def test_ziplora_needs_attention_projections(core, tiny_loras):
    parts = ingredients(core, tiny_loras, "kohya_text_only", "kohya_text_only")
    with pytest.raises(FusionError, match=r"change none; use 'merge' or 'mix-of-show'"):
        ziplora.fuse(core.model, parts, tiny_sampler(), lambda _: [])


def test_three_loras_are_refused_by_ziploras_name():
    mix = Mix(("concept",) * 3, SamplerConfig())
    with pytest.raises(CompositionError, match=r"'ziplora' needs 2 concept LoRA"):
        METHODS["ziplora"].variants(mix)


def test_a_method_that_fuses_nothing_has_no_recipe(core):
    with pytest.raises(ValueError, match="'merge' fuses nothing"):
        fuse("merge", core.model, [], SamplerConfig(), lambda _: [])
