"""The one JSON text of a value, so that equal values are equal texts, in keys and in columns."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

# Made once: a million rows are keyed with it.
_ENCODER = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
    check_circular=False,
)


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, 1.0 written as 1.

    Raises:
        TypeError: Something that JSON cannot say.
        ValueError: A NaN or an infinity.
    """
    return encoded(plain(value))


def encoded(value: object) -> str:
    """Return the JSON text of a value that is ``plain`` already."""
    return _ENCODER.encode(value)


def plain(value: object) -> object:
    """Return ``value`` with numbers that are equal written alike."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if value.is_integer() and math.fabs(value) < 2**53:
            return int(value)
        return value
    if isinstance(value, Mapping):
        return {
            str(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("Sequence[object]", value)]
    return value
