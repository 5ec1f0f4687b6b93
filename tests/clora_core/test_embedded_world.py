"""The fast sampler against the sequential reference on trained weights and a whole schedule."""

from dataclasses import replace

import pytest
import torch
import yaml
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import load_pipeline
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use

import emoji_world
from clora_core.config import sampler_preset
from clora_core.rows import ComposeRow


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


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("a cat and a dog on the beach", ("violet-cat", "husky-dog")),
        ("a car and a robot in the snow", ("mint-taxi", "retro-robot", "night")),
        ("a cat, a dog and a frog", ("violet-cat", "husky-dog", "azure-frog")),
    ],
    ids=["two", "two and a style", "three"],
)
def test_every_latent_update_and_mask_of_a_whole_image(core, pipeline, uses, prompt, names):
    """Text-encoder weights, convolutions and three file formats are among these LoRAs."""
    row = ComposeRow(
        prompt=prompt,
        loras=tuple(uses[name] for name in names),
        seed=11,
        method="clora",
        sampler=sampler_preset("emoji"),
        width=64,
        height=64,
    )
    expected = sequential_sample(pipeline, row)
    found, trace = core.sample(row, keep_maps=True)
    assert relative(found, expected.latents) < 1e-6
    assert [float(loss) for loss in trace.losses] == pytest.approx(expected.losses, rel=1e-8)
    assert len(trace.losses) == 15 + 3 * 4
    for ours, theirs in zip(trace.masks, expected.masks, strict=True):
        assert torch.equal(ours[0], theirs)


def test_other_steps_would_be_noticed(core, uses):
    """What the comparison above compares is not the same for any settings."""
    row = ComposeRow(
        prompt="a cat and a dog",
        loras=(uses["violet-cat"], uses["husky-dog"]),
        seed=11,
        method="clora",
        sampler=sampler_preset("emoji"),
        width=64,
        height=64,
    )
    other = replace(row, sampler=row.sampler.model_copy(update={"num_refine_updates": 3}))
    assert relative(core.sample(other)[0], core.sample(row)[0]) > 1e-3
