"""From a catalog's axes to manifest rows: every item in every scene, look and seed, once.

An item is what is sold or shown, with its LoRAs; a scene is a prompt with places for the item's
columns; a look is LoRAs that are added to any item's. A row is named for where it stands on each
axis, so the same picture has the same name in every edition, whatever becomes of its prompt.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from manifests.problems import Problem
from manifests.text_rules import MAX_PROMPT_CHARACTERS
from manifests.wording import did_you_mean, shown

__all__ = ["Axes", "axis_problems", "expand_rows", "lora_list"]

MAX_ROWS = 10_000_000

_PLACE = re.compile(r"\{([^{}]*)\}")
_LONGEST_VALUE = MAX_PROMPT_CHARACTERS + 1
_NAME = {"item": "items", "scene": "scenes"}


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a catalog is made of.

    Attributes:
        items: Each with a unique ``item``, its ``loras``, and whatever prompts speak of.
        scenes: Each with a unique ``scene`` and a ``prompt`` with ``{column}`` places; its other
            columns (negative_prompt, method, width, ...) go into its rows.
        looks: LoRAs that are added, by the look's name.
        seeds: One picture each.
    """

    items: Sequence[Mapping[str, Any]]
    scenes: Sequence[Mapping[str, Any]]
    looks: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]

    @property
    def num_rows(self) -> int:
        """Rows that they come to."""
        return len(self.items) * len(self.scenes) * len(self.looks) * len(self.seeds)


def axis_problems(axes: Axes, *, place: str) -> list[Problem]:
    """Return everything that keeps ``axes`` from being expanded."""
    problems = [
        *_name_problems(axes.items, "item", place),
        *_name_problems(axes.scenes, "scene", place),
    ]
    problems += [
        Problem(place=place, field=what, problem="should not be empty")
        for what in ("items", "scenes", "looks", "seeds")
        if not getattr(axes, what)
    ]
    if len(set(axes.seeds)) != len(axes.seeds):
        text = f"should differ, got {shown(list(axes.seeds))}"
        problems.append(Problem(place=place, field="seeds", problem=text))
    if axes.num_rows > MAX_ROWS:
        text = (
            f"{len(axes.items):,} items x {len(axes.scenes):,} scenes x {len(axes.looks):,} looks "
            f"x {len(axes.seeds):,} seeds are {axes.num_rows:,} rows, and a catalog has at most "
            f"{MAX_ROWS:,}; split it"
        )
        problems.append(Problem(place=place, field="(file)", problem=text))
    columns = {name for item in axes.items for name in item} - {"loras"}
    for number, scene in enumerate(axes.scenes, start=1):
        known = sorted(columns | (scene.keys() - {"prompt", "loras"}))
        prompt = scene.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            text = f"should be a text with places for columns of items, got {shown(prompt)}"
            problems.append(_in_scene(place, number, scene, text))
            continue
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            text = f"should have at most {MAX_PROMPT_CHARACTERS:,} characters, got {len(prompt):,}"
            problems.append(_in_scene(place, number, scene, text))
            continue
        for name in _PLACE.findall(prompt):
            if name not in known:
                text = f"{{{name}}} is no column of the items; {did_you_mean(name, known)}"
                problems.append(_in_scene(place, number, scene, text))
    return problems


def expand_rows(axes: Axes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest, in the order of items, scenes, looks and seeds.

    A place for a column that this item does not have stays as it is written, and the row's check
    finds no subject there.
    """
    for item in axes.items:
        for scene in axes.scenes:
            values = {**item, **scene}
            prompt = _PLACE.sub(
                # Cut where the row's check finds it too long: a scene may name it a thousand times.
                lambda found, values=values: str(values.get(found[1], found[0]))[:_LONGEST_VALUE],
                str(scene["prompt"]),
            )
            for look, added in axes.looks.items():
                loras = [*lora_list(item.get("loras")), *lora_list(scene.get("loras")), *added]
                for seed in axes.seeds:
                    yield {
                        **values,
                        "row_id": f"{item['item']}/{scene['scene']}/{look}/{seed}",
                        "look": look,
                        "prompt": prompt,
                        "loras": loras,
                        "seed": seed,
                    }


def lora_list(value: object) -> list[Any]:
    """Return the LoRAs that a cell names: a list, or a text with ``;`` between them."""
    if value is None:
        return []
    if isinstance(value, str):
        return [name.strip() for name in value.split(";") if name.strip()]
    if isinstance(value, Sequence):
        return list(cast("Sequence[Any]", value))
    return [value]


def _name_problems(rows: Sequence[Mapping[str, Any]], axis: str, place: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        name = row.get(axis)
        text = None
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            text = f"should name the {axis}, got {shown(name)}"
        elif "/" in str(name):
            text = f"should hold no /, which parts the names of a row, got {shown(name)}"
        elif str(name) in seen:
            text = f"is also the name of {axis} {seen[str(name)]}, got {shown(name)}"
        if text is not None:
            field = f"{_NAME[axis]} {number}, {axis}"
            yield Problem(place=place, field=field, problem=text)
        seen.setdefault(str(name), number)


def _in_scene(place: str, number: int, scene: Mapping[str, Any], text: str) -> Problem:
    field = f"scenes {number} ({shown(scene.get('scene'))}), prompt"
    return Problem(place=place, field=field, problem=text)
