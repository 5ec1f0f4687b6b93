"""A key changes with everything that changes pixels, and with nothing else."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.keys import canonical_json, row_key
from manifests.resolved import ResolvedLora

LORA = st.builds(
    ResolvedLora,
    name=st.just("any"),
    uri=st.just("/any"),
    digest=st.text("0123456789abcdef", min_size=4, max_size=8),
    kind=st.sampled_from(["concept", "style"]),
    weight=st.floats(-2, 2, allow_nan=False),
    subject=st.none() | st.text(max_size=5),
    trigger=st.none() | st.text(max_size=5),
    region_json=st.sampled_from([None, '{"box":[0,0,0.5,1],"mode":"restrict"}']),
)
FIELDS = {
    "prompt": st.text(max_size=20),
    "negative_prompt": st.text(max_size=5),
    "loras": st.lists(LORA, max_size=3),
    "seed": st.integers(0, 2**63 - 1),
    "method": st.sampled_from(["clora", "merge"]),
    "width": st.integers(8, 512),
    "height": st.integers(8, 512),
    "sampler": st.dictionaries(
        st.text(max_size=4), st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    ),
    "base_model_digest": st.text(max_size=4),
    "dtype": st.sampled_from(["float32", "float16"]),
    "engine_version": st.integers(1, 3),
}
ROWS = st.fixed_dictionaries(FIELDS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(row=ROWS, other=ROWS, field=st.sampled_from(sorted(FIELDS)))
def test_any_change_of_a_field_that_matters_changes_the_key(row, other, field):
    changed = row | {field: other[field]}
    assert (row_key(**row) == row_key(**changed)) == (row[field] == changed[field])


@settings(deadline=None)
@given(row=ROWS)
def test_the_order_of_loras_matters_and_the_order_of_settings_does_not(row):
    turned = row | {"loras": row["loras"][::-1]}
    assert (row_key(**row) == row_key(**turned)) == (row["loras"] == turned["loras"])
    settings = dict(reversed(row["sampler"].items()))
    assert row_key(**(row | {"sampler": settings})) == row_key(**row)


@settings(deadline=None)
@given(row=ROWS)
def test_settings_may_be_given_as_their_canonical_text(row):
    assert row_key(**(row | {"sampler": canonical_json(row["sampler"])})) == row_key(**row)


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
    assert key_of(one) == key_of(other)


def test_a_mask_counts_by_its_bytes_and_not_by_its_place():
    def with_mask(uri: str, digest: str, mode: str = "restrict") -> str:
        region = {"mask": {"sha256": digest, "uri": uri}, "mode": mode}
        return key_of(lora(region_json=canonical_json(region)))

    assert with_mask("/a.png", "1") == with_mask("s3://b/c.png", "1")
    assert len({with_mask("/a", "1"), with_mask("/a", "2"), with_mask("/a", "1", "replace")}) == 3


def lora(**changes: Any) -> ResolvedLora:
    values: dict[str, Any] = {
        "name": "a",
        "uri": "/a.safetensors",
        "digest": "d",
        "kind": "concept",
        "weight": 1.0,
        "subject": "cat",
        "trigger": None,
    }
    return ResolvedLora(**(values | changes))


def key_of(*loras: ResolvedLora) -> str:
    return row_key(**PINNED, loras=loras)


PINNED: dict[str, Any] = {
    "prompt": "a cat",
    "negative_prompt": "",
    "seed": 1,
    "method": "clora",
    "width": 64,
    "height": 64,
    "sampler": {"num_steps": 2},
    "base_model_digest": "b",
    "dtype": "float32",
    "engine_version": 1,
}


def test_a_key_is_what_it_was():
    """Pinned: a change here makes every image of every finished run again."""
    region = '{"box":[0,0,0.5,1],"mode":"restrict"}'
    key = key_of(lora(), lora(region_json=region))
    parts = (
        '{"base_model":"b","dtype":"float32","engine":"1","height":64,'
        '"loras":[["d",1,"concept","cat",null,null],["d",1,"concept","cat",null,' + region + "]],"
        '"method":"clora","negative_prompt":"","prompt":"a cat",'
        '"sampler":"{\\"num_steps\\":2}","seed":1,"width":64}'
    )
    assert key == hashlib.sha256(parts.encode()).hexdigest()
