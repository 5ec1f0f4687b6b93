"""A key changes with everything that changes pixels, and with nothing else."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.canonical import canonical_json
from clora_core.recipe.config import FUSE_SETTINGS, PRESETS, SamplerConfig, sampler_preset
from clora_core.recipe.key import row_key, sampler_json
from clora_core.recipe.row import Lora, Region, Row

BOX = Region(box=(0.0, 0.0, 0.5, 1.0))
LORA = st.builds(
    Lora,
    name=st.just("any"),
    uri=st.just("/any"),
    digest=st.text("0123456789abcdef", min_size=4, max_size=8),
    kind=st.sampled_from(["concept", "style"]),
    weight=st.floats(-2, 2, allow_nan=False),
    subject=st.none() | st.text(max_size=5),
    trigger=st.none() | st.text(max_size=5),
    region=st.sampled_from([None, BOX, Region(box=(0.0, 0.0, 0.5, 0.5), mode="replace")]),
)
SAMPLERS = st.builds(
    SamplerConfig,
    guidance_scale=st.floats(1, 20),
    guide_until_step=st.integers(0, 3),
    refine_steps=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    map_size=st.none() | st.integers(1, 16),
)
FIELDS = {
    "prompt": st.text(max_size=20),
    "negative_prompt": st.text(max_size=5),
    "loras": st.lists(LORA, max_size=3).map(tuple),
    "seed": st.integers(0, 2**63 - 1),
    "method": st.sampled_from(["clora", "merge"]),
    "width": st.integers(8, 512),
    "height": st.integers(8, 512),
    "sampler": SAMPLERS,
    "base_model_digest": st.text(max_size=4),
}
ROWS = st.builds(Row, **FIELDS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def key(row: Row, **changes: Any) -> str:
    return row_key(row, **({"dtype": "float32", "engine_version": 1} | changes))


@settings(deadline=None)
@given(row=ROWS, other=ROWS, field=st.sampled_from(sorted(FIELDS)))
def test_any_change_of_a_field_that_matters_changes_the_key(row: Row, other: Row, field: str):
    value = getattr(other, field)
    changed = replace(row, **{field: value})
    assert (key(row) == key(changed)) == (getattr(row, field) == value)


@settings(deadline=None)
@given(row=ROWS)
def test_precision_and_engine_change_the_key_and_names_do_not(row: Row):
    assert len({key(row), key(row, dtype="float16"), key(row, engine_version=2)}) == 3
    assert key(replace(row, row_id="r", key="k", carried_json='{"a":1}')) == key(row)


@settings(deadline=None)
@given(row=ROWS)
def test_the_order_of_loras_matters(row: Row):
    turned = replace(row, loras=row.loras[::-1])
    assert (key(row) == key(turned)) == (row.loras == turned.loras)


class LaterConfig(SamplerConfig):
    """The settings of a version to come."""

    sharpness: float = 0.0


def test_a_setting_that_did_not_exist_before_is_in_no_key_while_at_its_default():
    before, after = pinned(), pinned(sampler=LaterConfig(**PINNED_SAMPLER))
    assert key(after) == key(before)
    assert sampler_json(after.sampler) == sampler_json(before.sampler)
    sharper = pinned(sampler=LaterConfig(**PINNED_SAMPLER, sharpness=1.0))
    assert key(sharper) != key(before)
    assert LaterConfig.model_validate_json(sampler_json(sharper.sampler)) == sharper.sampler


@pytest.mark.parametrize("name", PRESETS)
def test_the_settings_of_before_and_no_later_one_are_in_every_key_of_a_preset(name: str):
    config, defaults = sampler_preset(name), SamplerConfig()
    prefixes = ("gate_", "freefuse_", "k_lora_")
    later = {name for name in SamplerConfig.model_fields if name.startswith(prefixes)}
    later |= FUSE_SETTINGS | {"prompt_syntax", "long_prompts", "clip_skip"}
    unset = {name for name in later if getattr(config, name) == getattr(defaults, name)}
    assert later - unset <= {"fuse_prompts"}
    assert sampler_json(config) == canonical_json(config.model_dump(mode="json", exclude=unset))
    assert SamplerConfig.model_validate_json(sampler_json(config)) == config


@settings(deadline=None)
@given(value=JSON)
def test_canonical_json_says_the_same_value_in_ascii(value: Any):
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (0.0, -0.0), ((1, 2), [1, 2])])
def test_equal_values_have_one_text(one, other):
    assert canonical_json({"a": one}) == canonical_json({"a": other})


def test_true_is_not_one():
    assert canonical_json(True) != canonical_json(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_json_cannot_say_is_refused(value):
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json(value)


def test_what_a_lora_is_called_and_where_it_lies_is_no_part_of_the_key():
    one, other = lora(), lora(name="b", uri="s3://b/b.safetensors", problem="gone")
    assert key(pinned(one)) == key(pinned(other))


def test_a_mask_counts_by_its_bytes_and_not_by_its_place():
    def with_mask(uri: str, digest: str, **mode: Any) -> str:
        return key(pinned(lora(region=Region(mask_uri=uri, mask_sha256=digest, **mode))))

    assert with_mask("/a.png", "1") == with_mask("s3://b/c.png", "1")
    found = {with_mask("/a", "1"), with_mask("/a", "2"), with_mask("/a", "1", mode="replace")}
    assert len(found) == 3


@pytest.mark.parametrize("text", [
    '{"box":[0,0,0.5,1],"mode":"restrict"}',
    '{"mask":{"sha256":"d","uri":"s3://b/m.png"},"mode":"replace"}',
])  # fmt: skip
def test_a_region_is_one_text(text: str):
    assert Region.from_json(text).to_json() == text


def lora(**changes: Any) -> Lora:
    values = {"name": "a", "uri": "/a.safetensors", "digest": "d", "kind": "concept"}
    return Lora(**(values | {"subject": "cat"} | changes))


PINNED_SAMPLER = {"num_steps": 2, "guide_until_step": 1}


def pinned(*loras: Lora, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "prompt": "a cat",
        "loras": loras,
        "seed": 1,
        "method": "clora",
        "width": 64,
        "height": 64,
        "sampler": SamplerConfig(**PINNED_SAMPLER),
        "base_model_digest": "b",
    }
    return Row(**(values | changes))


def test_a_key_is_what_it_was():
    """Pinned: a change here makes every image of every finished run again."""
    settings = (
        '{"attention_half":"cond","guidance_scale":7.5,"guide_until_step":1,"map_size":null,'
        '"mask_from_step":0,"mask_morphology":false,"mask_threshold":0.3,"merge_weights":"given",'
        '"num_refine_updates":20,"num_steps":2,"refine_steps":[0,10,20],'
        '"reforward_after_update":false,"scheduler":"ddim","step_size":20,"switch_as_published":false,'
        '"switch_every":5,"temperature":0.5,"text_encoder_lora":true}'
    )
    parts = (
        '{"base_model":"b","dtype":"float32","engine":"1","height":64,'
        '"loras":[["d",1,"concept","cat",null,null],'
        '["d",1,"concept","cat",null,{"box":[0,0,0.5,1],"mode":"restrict"}]],'
        '"method":"clora","negative_prompt":"","prompt":"a cat",'
        f'"sampler":{json.dumps(settings)},"seed":1,"width":64}}'
    )
    assert key(pinned(lora(), lora(region=BOX))) == hashlib.sha256(parts.encode()).hexdigest()
