"""Sums over all committed rows, taken a part at a time."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from manifests.tables.text_numbers import deal, dealing_spool, partition_numbers, text_numbers

_NUMBERS = pa.schema([("number", pa.uint64())])
_KEYS = pa.schema([("key", pa.string())])
_LINES = pa.schema([("unit_id", pa.string()), ("line", pa.string())])
_HEX = b"0123456789abcdef"
_BORDERS = np.array(sorted(first * 256 + second for first in _HEX for second in _HEX), np.int64)
"""First two bytes of ids that are hexadecimal, as numbers."""
_MAX_HELD_BYTES = 8 * 1024**2
_WHAT = "the committed rows"


@dataclass(frozen=True, kw_only=True)
class KeyCounts:
    """How many keys there are, and how many different ones."""

    num_keys: int
    num_distinct: int


def count_keys(tables: Callable[[], Iterable[pa.Table]]) -> KeyCounts:
    """Count the keys of tables with a column ``key``, which are taken twice if keys are equal."""
    spool = dealing_spool(_NUMBERS, _WHAT)
    for table in tables():
        if len(table):
            numbers = text_numbers(table["key"])
            spool.add(pa.table({"number": numbers}), partition_numbers(numbers))
    repeated: list[np.ndarray] = []
    for partition in spool.filled():
        numbers = np.sort(spool.partition(partition)["number"].to_numpy())
        repeated.append(np.unique(numbers[1:][numbers[1:] == numbers[:-1]]))
    num_keys = spool.num_rows
    spool.close()
    equal = np.sort(np.concatenate([np.array([], np.uint64), *repeated]))
    num_doubled = _num_doubled(tables(), equal) if len(equal) else 0
    return KeyCounts(num_keys=num_keys, num_distinct=num_keys - num_doubled)


def _num_doubled(tables: Iterable[pa.Table], equal: np.ndarray) -> int:
    """Return how many keys with these numbers are beyond the first of their key."""
    spool = dealing_spool(_KEYS, _WHAT)
    for table in tables:
        if len(table):
            numbers = text_numbers(table["key"])
            places = np.minimum(np.searchsorted(equal, numbers), len(equal) - 1)
            deal(spool, table.select(["key"]).filter(pa.array(equal[places] == numbers)))
    parts = (spool.partition(partition)["key"] for partition in spool.filled())
    return sum(len(keys) - (arrow.count_distinct(keys).as_py() or 0) for keys in parts)


def content_digest(units: Iterable[pa.Table]) -> str:
    """Return the digest of what units hold: which rows, and the one commit that made them.

    Args:
        units: unit_id, run_id, failed_at_ms, is_abandoned and image_sizes.
    """
    spool = Spool(_LINES, len(_BORDERS) + 1, max_held_bytes=_MAX_HELD_BYTES, what=_WHAT)
    for table in units:
        lines = pa.table(list(zip(*_lines(table), strict=True)) or [[], []], schema=_LINES)
        spool.add(lines, _order_partitions(lines["unit_id"]))
    digest = hashlib.sha256()
    for partition in spool.filled():
        part = spool.partition(partition)
        for line in part.sort_by("unit_id")["line"].to_pylist():
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _lines(units: pa.Table) -> Iterator[tuple[str, str]]:
    for unit in units.to_pylist():
        if not unit["is_abandoned"]:
            commit = [unit["unit_id"], unit["run_id"], unit["failed_at_ms"], unit["image_sizes"]]
            yield unit["unit_id"], json.dumps(commit)


def _order_partitions(ids: pa.ChunkedArray) -> np.ndarray:
    """Return a partition for each id; ids of a partition sort before those of the next."""
    starts = [(unit_id.encode()[:2] + b"\0\0")[:2] for unit_id in ids.to_pylist()]
    numbers = np.array([int.from_bytes(start, "big") for start in starts], np.int64)
    return np.searchsorted(_BORDERS, numbers, side="right")
