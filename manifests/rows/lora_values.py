"""The forms in which tables hold a row's LoRAs, all made one: a list of names and structs.

A text holds names with optional ``:weight``, or a list as JSON, Python, NumPy or DuckDB write it.
A table holds a list of names, structs or (name, weight) pairs, a map from name to weight, or
one struct of lists, which is what ``datasets`` makes of a list of structs.

Weights by name in a struct need care: Arrow, pandas, polars and ``datasets`` give all rows of a
column the names of every row, and null where a row has none. So null says there that the row lacks
the LoRA. In a list of pairs, as which Arrow gives a map, it leaves the weight to the catalog.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import cast

from manifests.text.cell_text import load_cell
from manifests.text.text_rules import is_missing

_BETWEEN = re.compile(r"[;|,\n]")
_DECIMAL_COMMA = re.compile(r":\s*[+-]?\d*,\d+\s*(?=[;|,\n]|$)")
_NAME = "lora"


def lora_items(value: object) -> Sequence[object]:
    """Return the LoRAs of a cell one by one, each as ``lora_struct`` takes it.

    Raises:
        ValueError: The cell cannot be read; the message is the rule and the way out.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, Mapping):
        return _from_struct(cast("Mapping[str, object]", value))
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise ValueError("should be a list of names or structs")  # noqa: TRY004 - a wrong cell
    return cast("Sequence[object]", value)


def lora_struct(item: object) -> object:
    """Return one LoRA as a struct: of a name, ``name:weight``, a pair, or a struct with nulls."""
    if isinstance(item, str):
        name, colon, weight = item.rpartition(":")
        if not colon:
            return {_NAME: item.strip()}
        try:
            return {_NAME: name.strip(), "weight": float(weight)}
        except ValueError:
            return {_NAME: name.strip(), "weight": weight.strip()}
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, object]", item)
        given = {key: value for key, value in fields.items() if not is_missing(value)}
        return given | ({"weight": _number(given["weight"])} if "weight" in given else {})
    if isinstance(item, list | tuple):
        pair = cast("Sequence[object]", item)
        if len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1]):
            return _weighed(pair[0], pair[1])
    return item


def _from_text(text: str) -> object:
    """Return the list or struct that a text writes, else the parts between its separators."""
    stripped = text.strip()
    if stripped.startswith(("[", "{", "('", '("')):
        return load_cell(stripped)
    if stripped.startswith('"'):
        loaded = load_cell(stripped)
        if not isinstance(loaded, str):
            return loaded
        stripped = loaded.strip()
    if _DECIMAL_COMMA.search(stripped):
        raise ValueError("should write weights with a point, as in cat:0.8, and LoRAs between ;")
    return [part.strip() for part in _BETWEEN.split(stripped) if part.strip()]


def _from_struct(fields: Mapping[str, object]) -> Sequence[object]:
    """Return a struct's LoRAs: itself, one for each place of its lists, or its names."""
    if not isinstance(fields.get(_NAME), list | tuple):
        return _from_map(fields) if _is_map(fields) else [fields]
    columns = {name: value for name, value in fields.items() if not is_missing(value)}
    lists = {
        name: cast("Sequence[object]", value)
        for name, value in columns.items()
        if isinstance(value, list | tuple)
    }
    if len(lists) < len(columns) or len({len(values) for values in lists.values()}) > 1:
        raise ValueError(
            "should have lists of one length in all of its fields, or be a list of structs"
        )
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _is_map(fields: Mapping[str, object]) -> bool:
    """Return whether the struct says weights by name, and is not one LoRA with its name missing."""
    return not fields.keys() & {_NAME, "weight"} and all(map(_is_number, fields.values()))


def _from_map(weights: Mapping[str, object]) -> Sequence[object]:
    """Return the LoRAs that have a weight; null stands for one that another row has."""
    return [_weighed(*pair) for pair in weights.items() if not is_missing(pair[1])]


def _weighed(name: str, weight: object) -> dict[str, object]:
    return {_NAME: name.strip()} | ({} if is_missing(weight) else {"weight": _number(weight)})


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return is_number or is_missing(value)


def _number(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value
