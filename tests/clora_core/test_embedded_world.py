"""The fast sampler against the sequential reference on trained weights and schedules in small."""

from dataclasses import replace

import pytest
import torch
import yaml
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import load_pipeline
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use

import emoji_world
from clora_core.recipe.config import sampler_preset
from clora_core.recipe.row import Row


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(emoji_world.base_model_dir(), dtype=torch.float64)


@pytest.fixture(scope="module")
def core():
    return Core(emoji_world.base_model_dir())


@pytest.fixture(scope="module")
def uses():
    catalog = emoji_world.lora_catalog()
    entries = yaml.safe_load(catalog.read_text())["loras"]
    fields = ("name", "kind", "subject", "trigger")
    return {
        entry["name"]: lora_use(
            catalog.parent / entry["uri"], **{name: entry.get(name) for name in fields}
        )
        for entry in entries
    }


def row(uses, prompt, names, **schedule):
    """A row of the world's own preset, on a shorter schedule."""
    return Row(
        prompt=prompt,
        loras=tuple(uses[name] for name in names),
        seed=11,
        method="clora",
        sampler=sampler_preset("emoji").model_copy(update=schedule),
        width=64,
        height=64,
    )


@pytest.fixture(scope="module")
def two(uses, core):
    """Two concepts over six steps, and what the sampler makes of them, once."""
    asked = row(
        uses,
        "a cat and a dog on the beach",
        ("violet-cat", "husky-dog"),
        num_steps=6,
        guide_until_step=4,
        refine_steps=(0, 2),
        num_refine_updates=2,
    )
    return asked, core.sample(asked, keep_maps=True)


@pytest.fixture(scope="module")
def three_and_a_style(uses, core):
    """Text-encoder weights, convolutions and three file formats are among all these LoRAs."""
    asked = row(
        uses,
        "a car, a robot and a frog in the snow",
        ("mint-taxi", "retro-robot", "azure-frog", "night"),
        num_steps=3,
        guide_until_step=2,
        refine_steps=(0,),
        num_refine_updates=2,
    )
    return asked, core.sample(asked, keep_maps=True)


@pytest.mark.parametrize(("made", "num_losses"), [("two", 4 + 4), ("three_and_a_style", 2 + 2)])
def test_every_latent_update_and_mask_of_an_image(request, pipeline, made, num_losses):
    asked, (found, trace) = request.getfixturevalue(made)
    expected = sequential_sample(pipeline, asked)
    assert relative(found, expected.latents) < 1e-6
    assert [float(loss) for loss in trace.losses] == pytest.approx(expected.losses, rel=1e-8)
    assert len(trace.losses) == num_losses
    for ours, theirs in zip(trace.masks, expected.masks, strict=True):
        assert torch.equal(ours[0], theirs)


def test_one_update_less_would_be_noticed(core, two):
    """What the comparison above compares is not the same for any settings."""
    asked, (found, _) = two
    other = asked.sampler.model_copy(update={"num_refine_updates": 1})
    assert relative(core.sample(replace(asked, sampler=other))[0], found) > 1e-3
