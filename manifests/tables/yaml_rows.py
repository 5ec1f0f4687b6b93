"""The rows of a list in a YAML file, as ``readers`` gives those of other files."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from clora_core.recipe.near_names import meant_as
from manifests.places.yaml_file import parse_mapping, read_text
from manifests.tables.readers import RawRow
from manifests.text.problems import InputError, Problem
from manifests.text.wording import shown
from manifests.text.yaml_text import numbered_items


def yaml_rows(place: str, *, field: str, item: str, max_bytes: int) -> Iterator[RawRow | Problem]:
    """Yield the items of the list ``field``, and a problem for each that is no mapping.

    Args:
        place: The file, an absolute path or a URI.
        field: Where the list stands in it.
        item: What an item is, for messages: ``a mapping with ...``.
        max_bytes: Larger files are refused.
    """
    expected = f"a mapping with a list under '{field}:', each item {item}"
    try:
        text = read_text(place, max_bytes=max_bytes)
        given = parse_mapping(text, place=place, expected=expected)
    except InputError as error:
        yield from error.problems
        return
    name = field if field in given else _misnamed(given, field)
    if name != field:
        problem = f"is not the name of the list; did you mean {field!r}?"
        yield Problem(place=place, field=name, problem=problem)
    items = given.get(name)
    if not isinstance(items, list):
        problem = f"should be {expected}, got {shown(items)} there"
        yield Problem(place=place, field="(file)", problem=problem)
        return
    numbered = zip(numbered_items(text, name), cast("list[Any]", items), strict=True)
    for line, values in numbered:
        if not isinstance(values, Mapping):
            problem = f"should be {item}, got {shown(values)}"
            yield Problem(place=place, line=line, field="(entry)", problem=problem)
            continue
        cells = cast("Mapping[object, Any]", values)
        row = {str(name): value for name, value in cells.items() if value is not None}
        yield RawRow(place=place, line=line, values=row)


def _misnamed(given: Mapping[str, Any], field: str) -> str:
    """Return the name of the list that is meant as ``field``; ``field`` itself if none is."""
    lists = [name for name, value in given.items() if isinstance(value, list)]
    like = [name for name in lists if meant_as(name, [field]) is not None]
    return next(iter(like or lists), field) if len(lists) == 1 or len(like) == 1 else field
