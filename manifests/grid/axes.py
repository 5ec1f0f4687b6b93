"""A catalog as a grid: every item in every scene, look and seed, once.

An item is what is sold or shown, with its LoRAs; a scene is a prompt with places for the item's
columns; a look is LoRAs that are added to any item's. A row is named for where it stands on each
axis, so the same picture has the same name in every edition, whatever becomes of its prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.grid.rows import MAX_ROWS, Motif, grid_rows
from manifests.grid.template import filled, places
from manifests.rows.loras import requested_loras
from manifests.text.text_rules import MAX_PROMPT_CHARACTERS
from manifests.text.wording import did_you_mean, shown

_Findings = Iterator[tuple[str, str]]


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


def axis_findings(axes: Axes) -> _Findings:
    """Yield (setting, sentence) of everything that keeps ``axes`` from being expanded."""
    yield from _name_findings(axes.items, "item")
    yield from _name_findings(axes.scenes, "scene")
    for what in ("items", "scenes", "looks", "seeds"):
        if not getattr(axes, what):
            yield what, "should not be empty"
    if len(set(axes.seeds)) != len(axes.seeds):
        yield "seeds", f"should differ, got {shown(list(axes.seeds))}"
    if axes.num_rows > MAX_ROWS:
        yield (
            "(file)",
            f"{len(axes.items):,} items x {len(axes.scenes):,} scenes x {len(axes.looks):,} looks "
            f"x {len(axes.seeds):,} seeds are {axes.num_rows:,} rows, and a catalog has at most "
            f"{MAX_ROWS:,}; split it",
        )
    yield from _lora_findings(axes)
    columns = {name for item in axes.items for name in item} - {"loras"}
    for number, scene in enumerate(axes.scenes, start=1):
        known = sorted(columns | (scene.keys() - {"prompt", "loras"}))
        for text in _prompt_findings(scene.get("prompt"), known):
            yield f"scenes {number} ({shown(scene.get('scene'))}), prompt", text


def expand_axes(axes: Axes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest, in the order of items, scenes, looks and seeds.

    A place for a column that this item does not have stays as it is written, and the row's check
    finds no subject there.
    """
    return grid_rows(_motifs(axes), row_id="{name}/{seed}")


def _motifs(axes: Axes) -> Iterator[Motif]:
    scenes = [(scene, requested_loras(scene.get("loras"))[0]) for scene in axes.scenes]
    looks = [(look, requested_loras(added)[0]) for look, added in axes.looks.items()]
    for item in axes.items:
        own, _ = requested_loras(item.get("loras"))
        for scene, more in scenes:
            values = {**item, **scene}
            prompt = filled(str(scene["prompt"]), values)
            for look, added in looks:
                yield Motif(
                    name=f"{item['item']}/{scene['scene']}/{look}",
                    prompt=prompt,
                    loras=(*own, *more, *added),
                    columns={**values, "look": look},
                    seeds=axes.seeds,
                )


def _lora_findings(axes: Axes) -> _Findings:
    cells = [
        *((f"items {n}", item.get("loras")) for n, item in enumerate(axes.items, start=1)),
        *((f"scenes {n}", scene.get("loras")) for n, scene in enumerate(axes.scenes, start=1)),
        *((f"looks {shown(look)}", added) for look, added in axes.looks.items()),
    ]
    for where, cell in cells:
        for field, text in requested_loras(cell)[1]:
            yield f"{where}, {field}", text


def _prompt_findings(prompt: object, known: Sequence[str]) -> Iterator[str]:
    if not isinstance(prompt, str) or not prompt.strip():
        yield f"should be a text with places for columns of items, got {shown(prompt)}"
    elif len(prompt) > MAX_PROMPT_CHARACTERS:
        yield f"should have at most {MAX_PROMPT_CHARACTERS:,} characters, got {len(prompt):,}"
    else:
        for name in places(prompt):
            if name not in known:
                yield f"{{{name}}} is no column of the items; {did_you_mean(name, known)}"


def _name_findings(rows: Sequence[Mapping[str, Any]], axis: str) -> _Findings:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        name = row.get(axis)
        where = f"{axis}s {number}, {axis}"
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            yield where, f"should name the {axis}, got {shown(name)}"
        elif "/" in str(name):
            yield where, f"should hold no /, which parts the names of a row, got {shown(name)}"
        elif str(name) in seen:
            yield where, f"is also the name of {axis} {seen[str(name)]}, got {shown(name)}"
        seen.setdefault(str(name), number)
