"""Settings: presets, overrides and what is said about wrong ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clora_core.recipe.config import PRESETS, SamplerConfig, sampler_preset


def test_the_default_is_the_papers_preset():
    config = SamplerConfig()
    assert config == sampler_preset("paper")
    assert (config.num_steps, config.guide_until_step, config.refine_steps) == (50, 25, (0, 10, 20))
    assert (config.num_refine_updates, config.step_size, config.temperature) == (20, 20.0, 0.5)
    assert (config.guidance_scale, config.mask_threshold) == (7.5, 0.3)
    assert (config.attention_half, config.reforward_after_update) == ("cond", False)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_names_only_what_it_changes(name):
    config = sampler_preset(name)
    default = SamplerConfig()
    assert all(getattr(config, field) != getattr(default, field) for field in PRESETS[name])
    assert config.guide_until_step <= config.num_steps


def test_the_notebooks_preset_doubles_the_steps_and_leaves_refinement_where_it_was():
    demo = sampler_preset("demo")
    assert (demo.num_steps, demo.guide_until_step, demo.refine_steps) == (100, 50, (0, 10, 20))


def test_the_published_defaults_make_no_latent_update():
    published = sampler_preset("published-defaults")
    assert sum(published.num_updates(step) for step in range(published.num_steps)) == 0


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'papr'; there are paper, demo"):
        SamplerConfig.resolve({"preset": "papr"})
    with pytest.raises(ValueError, match="there are paper"):
        sampler_preset("best")


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("num_step", "num_steps"),
        ("guidance", "guidance_scale"),
        ("mask_level", "mask_threshold"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(field, nearest):
    with pytest.raises(ValueError, match=f"no sampler setting '{field}'; did you mean '{nearest}'"):
        SamplerConfig.resolve({field: 3})


def test_a_setting_like_no_other_is_refused_with_all_there_are():
    with pytest.raises(
        ValueError, match="no sampler setting 'zzz'; there are scheduler, num_steps"
    ):
        SamplerConfig.resolve({"zzz": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"num_steps": 1001},
        {"num_steps": "many"},
        {"guidance_scale": 0.5},
        {"step_size": 0.0},
        {"temperature": 0.0},
        {"mask_threshold": 1.5},
        {"scheduler": "pndm"},
        {"attention_half": "left"},
        {"merge_weights": "sum"},
        {"switch_every": 0},
        {"map_size": 0},
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_refused_by_name(wrong):
    [name] = wrong
    with pytest.raises(ValidationError, match=name):
        SamplerConfig.resolve(wrong)


def test_guidance_must_end_with_the_steps():
    with pytest.raises(
        ValidationError, match=r"guide_until_step \(25\) must be <= num_steps \(10\)"
    ):
        SamplerConfig.resolve({"num_steps": 10})


def test_overrides_change_the_preset_and_the_preset_replaces_the_base():
    job = SamplerConfig.resolve({"preset": "demo", "temperature": 0.2})
    assert (job.num_steps, job.temperature) == (100, 0.2)
    row = SamplerConfig.resolve({"mask_threshold": 0.5}, base=job)
    assert (row.num_steps, row.temperature, row.mask_threshold) == (100, 0.2, 0.5)
    assert SamplerConfig.resolve({"preset": "paper"}, base=job) == SamplerConfig()


def test_resolving_does_not_change_what_it_is_given():
    given_settings = {"preset": "emoji", "num_steps": 40}
    SamplerConfig.resolve(given_settings)
    assert given_settings == {"preset": "emoji", "num_steps": 40}


def test_updates_of_each_step():
    config = SamplerConfig(
        num_steps=10, guide_until_step=4, refine_steps=(1, 7), num_refine_updates=5
    )
    assert [config.num_updates(step) for step in range(6)] == [1, 6, 1, 1, 0, 0]
    assert config.num_updates(7) == 0


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "guidance_scale": st.floats(1, 20),
            "refine_steps": st.lists(st.integers(0, 24), max_size=3),
            "attention_half": st.sampled_from(["cond", "both"]),
            "map_size": st.none() | st.integers(1, 64),
        },
    )
)
def test_equal_settings_are_equal_keys_and_survive_json(settings):
    config = SamplerConfig.resolve(settings)
    again = SamplerConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert hash(again) == hash(config)
    assert SamplerConfig.resolve(again.model_dump()) == config


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        SamplerConfig().num_steps = 3
