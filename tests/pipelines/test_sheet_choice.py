"""The contact sheet's rows are chosen in passing as they are from all rows at once."""

import random
from typing import Any

import pyarrow as pa
import pytest

from pipelines.outputs import sheet_choice
from pipelines.outputs.contact_sheet import MAX_SHEET_ROWS, choose_rows
from pipelines.outputs.listed_rows import LISTED
from pipelines.outputs.sheet_choice import SheetChoice


def listed(**changes: Any) -> dict[str, Any]:
    value = {"prompt": "a cat", "lora_names": ["cat"], "seed": 0, "method": "clora"} | changes
    key = "-".join(str(part) for part in value.values())
    size = {"width": 64, "height": 64, "unit_id": "u"}
    return {**dict.fromkeys(LISTED.names), **size, "key": key, **value}


def chosen(rows: list[dict[str, Any]], *, rows_at_once: int = 7) -> list[str]:
    choice = SheetChoice()
    for start in range(0, len(rows), rows_at_once):
        choice.add(pa.Table.from_pylist(rows[start : start + rows_at_once], schema=LISTED))
    return [row["key"] for row in choice.chosen()]


ROWS = [
    listed(seed=seed, method=method, prompt=prompt)
    for seed in range(40)
    for method in ("clora", "merge")
    for prompt in ("a cat", "a dog")
    if seed % 3 or method == "clora"
]


def test_the_choice_is_that_of_all_rows_at_once():
    slow = choose_rows([{**row, "loras": [{"name": "cat"}]} for row in ROWS])
    expected = [row["key"] for _, methods in slow for row in methods.values()]
    assert sorted(chosen(ROWS)) == sorted(expected)


def test_the_choice_does_not_depend_on_the_order_of_rows():
    twice = [*ROWS, *(row | {"key": "0" + row["key"]} for row in ROWS)]
    shuffled = random.Random(3).sample(twice, len(twice))
    assert sorted(chosen(shuffled)) == sorted(chosen(twice))
    assert all(key.startswith("0") for key in chosen(twice))


def test_of_more_compositions_than_are_held_whole_ones_are_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sheet_choice, "MAX_HELD", 20)
    rows = [
        listed(seed=seed, method=method) for method in ("clora", "merge") for seed in range(500)
    ]
    keys = chosen(rows)
    assert len(keys) == 2 * MAX_SHEET_ROWS
    assert sorted(key.replace("merge", "clora") for key in keys) == sorted(
        2 * [key for key in keys if "clora" in key]
    )
    assert sorted(chosen(rows[::-1])) == sorted(keys)
