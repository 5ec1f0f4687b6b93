from itertools import product
from typing import Any

import pytest

from manifests.grid.axes import Axes, axis_findings, expand_axes
from manifests.rows.loras import requested_loras


def axes(**changes: Any) -> Axes:
    values: dict[str, Any] = {
        "items": [
            {"item": "mug", "loras": "mug;logo", "colour": "red"},
            {"item": "hat", "loras": ["hat"], "colour": "blue", "width": 640},
        ],
        "scenes": [
            {"scene": "beach", "prompt": "a {colour} {item} on the beach"},
            {"scene": "desk", "prompt": "a {item} on a desk", "negative_prompt": "blur"},
        ],
        "looks": {"plain": [], "ink": ["ink"]},
        "seeds": [1, 2],
    }
    return Axes(**(values | changes))


def test_there_is_a_row_for_every_combination_and_its_name_says_which():
    rows = list(expand_axes(axes()))
    names = [
        "/".join(map(str, point))
        for point in product(["mug", "hat"], ["beach", "desk"], ["plain", "ink"], [1, 2])
    ]
    assert [row["row_id"] for row in rows] == names
    assert len(rows) == axes().num_rows == 16
    assert not list(axis_findings(axes()))


def test_a_row_has_its_item_s_words_loras_and_columns_and_its_scene_s():
    rows = {row["row_id"]: row for row in expand_axes(axes())}
    row = rows["hat/desk/ink/2"]
    assert row == {
        "item": "hat",
        "colour": "blue",
        "width": 640,
        "scene": "desk",
        "negative_prompt": "blur",
        "look": "ink",
        "prompt": "a hat on a desk",
        "loras": [{"lora": "hat"}, {"lora": "ink"}],
        "seed": 2,
        "row_id": "hat/desk/ink/2",
    }
    assert rows["mug/beach/plain/1"]["prompt"] == "a red mug on the beach"
    assert rows["mug/beach/plain/1"]["loras"] == [{"lora": "mug"}, {"lora": "logo"}]


@pytest.mark.parametrize(
    "cell",
    [
        None,
        "",
        "a; b ;",
        "a|b:0.5",
        '["a", "b"]',
        '[{"lora": "a", "weight": 0.123456789}]',
        [{"lora": "a", "weight": 0.5}, "b"],
        {"lora": "a", "subject": "cat"},
    ],
)
@pytest.mark.parametrize("axis", ["item", "scene", "look"])
def test_a_cell_of_loras_is_what_it_is_in_a_manifest_on_every_axis(cell: object, axis: str):
    made = axes(
        items=[{"item": "mug", "loras": cell if axis == "item" else None, "colour": "red"}],
        scenes=[{"scene": "s", "prompt": "a cat", "loras": cell if axis == "scene" else None}],
        looks={"plain": cell if axis == "look" else []},
        seeds=[0],
    )
    (row,) = expand_axes(made)
    assert requested_loras(row["loras"]) == requested_loras(cell)


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"items": []}, "items", "should not be empty"),
        ({"looks": {}}, "looks", "should not be empty"),
        ({"seeds": [1, 1]}, "seeds", "should differ"),
        ({"items": [{"item": "a"}, {"item": "a"}]}, "items 2, item", "also the name of item 1"),
        ({"items": [{"item": "a/b"}]}, "items 1, item", "should hold no /"),
        ({"items": [{"colour": "red"}]}, "items 1, item", "should name the item"),
        (
            {"scenes": [{"scene": "s", "prompt": "a {color} cat"}]},
            "scenes 1 ('s'), prompt",
            "{color} is no column of the items; did you mean 'colour'?",
        ),
        ({"scenes": [{"scene": "s"}]}, "scenes 1 ('s'), prompt", "should be a text"),
        ({"items": [{"item": "a", "loras": "cat:much"}]}, "items 1, loras[0].weight", "'much'"),
        ({"items": [{"item": "a", "loras": '["cat'}]}, "items 1, loras", "is not valid JSON"),
        ({"looks": {"ink": [7]}}, "looks 'ink', loras[0]", "got 7"),
        ({"seeds": range(5_000_000)}, "(file)", "a catalog has at most 10,000,000"),
    ],
)
def test_what_cannot_be_expanded_is_named(changes: dict[str, Any], field: str, sentence: str):
    (text,) = [text for where, text in axis_findings(axes(**changes)) if where == field]
    assert sentence in text


def test_a_scene_s_prompt_is_as_long_as_a_prompt_may_be_and_so_is_what_is_put_in():
    long = {"scene": "long", "prompt": "{colour}" * 1000}
    ((_, text),) = axis_findings(axes(scenes=[long]))
    assert "should have at most 4,000 characters, got 8,000" in text
    item = {"item": "mug", "loras": "mug", "colour": "x" * 10_000_000}
    scene = {"scene": "short", "prompt": "{colour}" * 100}
    (row,) = expand_axes(axes(items=[item], scenes=[scene], looks={"plain": []}, seeds=[0]))
    assert 4000 < len(row["prompt"]) < 500_000
