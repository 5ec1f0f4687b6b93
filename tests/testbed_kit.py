"""Invented lists in the form of published testbeds, for their readers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GROUPS: dict[str, list[dict[str, Any]]] = {
    "character": [
        {"id": "character_1", "name": "Miller", "trigger": ["old miller", "grey beard"]},
        {"id": "character_2", "trigger": ["qxv", "1woman", "red scarf"], "url": "https://x.test/2"},
    ],
    "clothing": [{"id": "clothing_1", "name": "Coat", "trigger": ["rain coat"]}],
    "style": [
        {"id": "style_1", "trigger": ["woodcut"]},
        {"id": "style_2", "trigger": ["chalk", "chalk drawing"]},
    ],
    "object": [{"id": "object_1", "trigger": ["kite", "holding a kite"]}],
}
"""Two characters, and three groups of one, two and one: the form of ComposLoRA."""

TWO = ("a {0} beside a {1}", "{1} looks at the {0}. ")
ONE = ("a {} in the snow", "{}, drawn with chalk")


def write_composlora(folder: Path, groups: Mapping[str, object] = GROUPS) -> Path:
    path = folder / "mill_lora_info.json"
    path.write_text(json.dumps(groups))
    return path


def concept(name: str, noun: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "instance_prompt": f"photo of a <new{number}> {noun}",
        "class_prompt": noun,
        "instance_data_dir": f"./pictures/{name}",
        "class_data_dir": f"./others/{noun}",
        "prompt_filename": "prompts/one.txt",
        **changes,
    }


def together(*concepts: Mapping[str, Any], prompts: str = "prompts/two.txt") -> list[Any]:
    return [*concepts, {"prompt_filename_compose": prompts}]


def write_customconcept101(
    folder: Path, entries: Sequence[object], *, two: Sequence[str] = TWO, one: Sequence[str] = ONE
) -> Path:
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    (folder / "prompts/two.txt").write_text("\n".join(two))
    (folder / "prompts/one.txt").write_text("\n".join(one))
    path = folder / "dataset.json"
    path.write_text(json.dumps(entries))
    return path
