"""JSON as input: no key that is silently taken twice.

JSON lets an object name a key twice, and Python keeps the last. In a row or a file's header that is
a mistake someone would like to hear of.
"""

import json
from collections.abc import Iterable
from typing import Any


def load_json(text: str, *, allow_nan: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: One JSON value.
        allow_nan: Take ``NaN`` and ``Infinity``, which Python writes and JSON doesn't know.

    Raises:
        ValueError: Not JSON, or a key given twice.
        RecursionError: Nested too deeply.
    """
    constants = None if allow_nan else _refuse_constant
    return json.loads(text, object_pairs_hook=_pairs_that_differ, parse_constant=constants)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _pairs_that_differ(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = first_repeated(name for name, _ in pairs)
        raise ValueError(f"{(twice or '')[:100]!r} is given twice")
    return found


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that was there before, or None; takes as long as there are names."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
