"""JSON as input: no key that is silently taken twice.

JSON lets an object name a key twice, and Python keeps the last. In a row or a file's header that is
a mistake someone would like to hear of.
"""

import json
from typing import Any

__all__ = ["load_json"]


def load_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: Not JSON, or a key given twice.
        RecursionError: Nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_pairs_that_differ)


def _pairs_that_differ(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:100]!r} is given twice")
    return found
