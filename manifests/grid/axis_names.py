"""The columns of a catalog's items and scenes by name, as ``manifests.rows.columns`` has a row's.

An item has columns of its own, because prompts speak of them; one that a prompt speaks of is read,
whatever it is called.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from manifests.grid.template import places
from manifests.rows.columns import COLUMNS
from manifests.text.given_names import named_values
from manifests.text.sections import Section

_MADE = ("row_id", "prompt", "seed")
"""Columns of a row that a catalog makes."""
_SHARED = tuple(name for name in COLUMNS.names if name not in _MADE)
ITEM = replace(COLUMNS, names=("item", *_SHARED), required=frozenset({"item"}))
SCENE = replace(
    COLUMNS, names=("scene", "prompt", *_SHARED), required=frozenset({"scene", "prompt"})
)

_Rows = list[dict[str, Any]]
_Findings = list[tuple[str, str]]


def named_scenes(scenes: Sequence[Mapping[str, Any]]) -> tuple[_Rows, _Findings]:
    """Return the scenes under the columns that were meant, and (column, sentence) of each slip."""
    return _named(scenes, SCENE)


def named_items(
    items: Sequence[Mapping[str, Any]], scenes: Iterable[Mapping[str, Any]]
) -> tuple[_Rows, _Findings]:
    """Return the items likewise.

    Args:
        items: As they are written.
        scenes: Whose prompts speak of columns of items.
    """
    prompts = {str(scene.get("prompt")) for scene in scenes}
    spoken_of = {name.lower() for prompt in prompts for name in places(prompt)}
    return _named(items, replace(ITEM, own_words=ITEM.own_words | spoken_of))


def _named(rows: Sequence[Mapping[str, Any]], section: Section) -> tuple[_Rows, _Findings]:
    named = [named_values(row, section) for row in rows]
    findings = dict.fromkeys(finding for row in named for finding in row.findings)
    return [row.values for row in named], list(findings)
