"""Random damage to bytes and values, the same for the same seed."""

import random
from collections.abc import Mapping
from typing import Any

JUNK_TEXTS = (
    "", " ", "\0", "\x1b[2J", "\u202e", "\ud800", "\ufeff", "\u2028", "\U0001f431", "a" * 5000,
    "NaN", "null", "-1", "1e999", "0x10", "[", "{", '{"a": 1, "a": 2}', "[" * 3000,
    "'\";,|:\t", "../../etc/passwd",
    "file:///etc/passwd", "s3://x@y/z", "%s%n", "=1+1", "cat;cat", "cat:nan", "__metadata__",
)  # fmt: skip
JUNK_NUMBERS = (
    0, -1, 1, 7, 8, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5, -0.0, 1e300,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def junk(source: random.Random, depth: int = 0) -> Any:
    """Return a random value of any JSON kind, a bit more often one that has broken something."""
    kind = source.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return source.choice((None, True, False))
    if kind in (1, 2):
        return source.choice(JUNK_NUMBERS)
    if kind in (3, 4):
        return source.choice(JUNK_TEXTS) if source.random() < 0.7 else random_text(source)
    if kind in (5, 6):
        return [junk(source, depth + 1) for _ in range(source.randrange(4))]
    return {
        source.choice(JUNK_TEXTS)[:50]: junk(source, depth + 1) for _ in range(source.randrange(3))
    }


def random_text(source: random.Random) -> str:
    """Return up to a dozen random characters of every plane."""
    return "".join(
        chr(source.choice((source.randrange(128), source.randrange(0x110000))))
        for _ in range(source.randrange(12))
    )


def mutated(value: Any, source: random.Random) -> Any:
    """Return ``value`` with one thing in it changed: replaced, dropped, added or renamed."""
    if isinstance(value, Mapping) and value and source.random() < 0.8:
        changed = dict(value)
        name = source.choice(list(changed))
        how = source.randrange(6)
        if how == 0:
            del changed[name]
        elif how == 1:
            changed[source.choice(JUNK_TEXTS)[:50] or "x"] = changed.pop(name)
        elif how == 2:
            changed[f"{name}{source.choice('sx_ .')}"] = junk(source)
        else:
            changed[name] = mutated(changed[name], source)
        return changed
    if isinstance(value, list) and value and source.random() < 0.7:
        changed_list = list(value)
        place = source.randrange(len(changed_list))
        changed_list[place] = mutated(changed_list[place], source)
        return changed_list
    if isinstance(value, int) and not isinstance(value, bool) and source.random() < 0.5:
        return value + source.choice((-8, -4, -2, -1, 1, 2, 4, 8))
    return junk(source)


def damaged(content: bytes, source: random.Random) -> bytes:
    """Return the bytes with a few of them flipped, cut out, put in twice or cut off."""
    changed = bytearray(content)
    for _ in range(source.randrange(1, 5)):
        if not changed:
            break
        place = source.randrange(len(changed))
        length = source.randrange(1, 9)
        how = source.randrange(5)
        if how == 0:
            changed[place] ^= 1 << source.randrange(8)
        elif how == 1:
            changed[place] = source.randrange(256)
        elif how == 2:
            del changed[place : place + length]
        elif how == 3:
            changed[place:place] = source.choice((changed[place : place + length], b'"{}[]:,\0'))
        elif source.random() < 0.2:
            del changed[place:]
    return bytes(changed)
