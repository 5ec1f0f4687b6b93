"""Lists and structs as programs write them into a text cell."""

import ast
import random

import numpy as np
import pytest

from manifests.text.cell_text import load_cell
from manifests.text.list_text import MAX_CHARACTERS, load_list_text


def value(source: random.Random, depth: int = 0):
    kind = source.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return source.choice((None, True, False, 0, -7, 0.5, 1e300, 10**20))
    if kind < 4:
        texts = ("cat", "a b", "it's", '"', "a\\b", "ä\n", "\x00", "", "1", "None", "[", "]}", ",")
        return "".join(source.choices(texts, k=source.randrange(3)))
    if kind < 6:
        return [value(source, depth + 1) for _ in range(source.randrange(4))]
    return {value(source, 3) or "x": value(source, depth + 1) for _ in range(source.randrange(4))}


def test_what_python_writes_is_what_python_reads():
    source = random.Random(1)
    for _ in range(2000):
        written = [value(source)]
        keys_are_texts = all(isinstance(k, str) for k in dict_keys(written))
        if keys_are_texts:
            assert load_list_text(repr(written)) == ast.literal_eval(repr(written)) == written


def dict_keys(item):
    if isinstance(item, dict):
        yield from item
        for inner in item.values():
            yield from dict_keys(inner)
    elif isinstance(item, list):
        for inner in item:
            yield from dict_keys(inner)


@pytest.mark.parametrize(
    "items",
    [
        ["cat", "husky dog", "it's"],
        [f"a LoRA of a long name {number}" for number in range(16)],
        [0.0, 0.25, 1.0],
        [{"lora": "cat", "weight": 0.5}, {"lora": "dog", "weight": None}],
        [[1, 2], [3, 4]],
    ],
)
def test_what_numpy_writes_without_commas_is_the_list(items):
    array = np.array(items, dtype=object if isinstance(items[0], dict | str) else None)
    assert load_list_text(str(array)) == items
    assert load_list_text(repr([array])) == [items]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[violet-cat, husky dog, 'it\\'s', 'a:0.5', 'x,y']",
         ["violet-cat", "husky dog", "it's", "a:0.5", "x,y"]),
        ("{'num_steps': 30, 'preset': emoji, 'refine_steps': []}",
         {"num_steps": 30, "preset": "emoji", "refine_steps": []}),
        ("[{'lora': cat, 'weight': NULL}]", [{"lora": "cat", "weight": None}]),
        ("{cat=0.5, 'a b'=1}", {"cat": 0.5, "a b": 1}),
        ("[np.str_('cat'), np.float64(0.5), Decimal('0.5')]", ["cat", 0.5, 0.5]),
        ("(('cat', 0.5), ('dog', nan),)", [["cat", 0.5], ["dog", None]]),
    ],
)  # fmt: skip
def test_what_duckdb_and_others_write(text, expected):
    assert load_list_text(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("['a'", "no , or ] at character 5"),
        ("['a", "a quote that is not closed at character 2"),
        ("[a b", "no , or ]"),
        ("['a'] x", "more than one value at character 7"),
        ("{'a': 1, 'a': 2}", "'a' is given twice"),
        ("[,]", "no value at character 2"),
        ("{a}", "no : at character 3"),
        ("[" * 3000, "nested too deeply"),
        ("[" + "a," * MAX_CHARACTERS, "longer than 20,000 characters"),
        ("[__import__('os')]", "no , or ]"),
    ],
)
def test_what_is_no_list_is_refused_with_its_place(text, reason):
    with pytest.raises(ValueError, match=r".") as refused:
        load_list_text(text)
    assert reason in str(refused.value)


def test_json_comes_first_and_its_reason_is_given():
    assert load_cell('["a", "b"]') == ["a", "b"]
    assert load_cell('"a"') == "a"
    with pytest.raises(ValueError, match=r"is not valid JSON \('a' is given twice\)"):
        load_cell('{"a": 1, "a": 2}')
