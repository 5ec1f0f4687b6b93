"""Numbers for texts: equal texts have equal numbers, so tables are dealt and searched by them.

Keys and ids are hashes of 64 digits, which are numbered as arrays; any other text by itself.
Unequal texts may share a number, if hardly ever, so who needs to know compares the texts.
"""

import hashlib

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool

NUM_PARTITIONS = 128

_MAX_HELD_BYTES = 8 * 1024**2
_DIGITS = 64
_WORDS = _DIGITS // 8
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def text_numbers(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a number for each text (none is null) [text], of 64 bits."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if isinstance(array, pa.ChunkedArray):  # of no chunks
        array = pa.array([], pa.string())
    is_hash = np.asarray(arrow.equal(arrow.binary_length(array), _DIGITS))
    if is_hash.all():
        return _hash_numbers(array)
    numbers = np.empty(len(array), np.uint64)
    numbers[is_hash] = _hash_numbers(array.filter(pa.array(is_hash)))
    others = array.filter(pa.array(~is_hash)).to_pylist()
    numbers[~is_hash] = np.array([_number(text) for text in others], np.uint64)
    return numbers


def dealing_spool(schema: pa.Schema, what: str) -> Spool:
    """Return a spool to ``deal`` to; several are filled at a time, so each holds little."""
    return Spool(schema, NUM_PARTITIONS, max_held_bytes=_MAX_HELD_BYTES, what=what)


def deal(spool: Spool, table: pa.Table, column: str = "key") -> None:
    """Add rows to a ``dealing_spool``, those of equal texts to the same partition."""
    if len(table):
        spool.add(table, partition_numbers(text_numbers(table[column])))


def partition_numbers(numbers: np.ndarray) -> np.ndarray:
    """Return the partition of each number."""
    return (numbers % np.uint64(NUM_PARTITIONS)).astype(np.int64)


class TextPlaces:
    """Finds texts in an array.

    Args:
        texts: None is null; of equal ones the first is found.
    """

    def __init__(self, texts: pa.Array) -> None:
        numbers = text_numbers(texts)
        self._texts = texts
        self._order = np.argsort(numbers, kind="stable").astype(np.int32)
        self._numbers = numbers[self._order]
        # How many texts may have to be compared: 1, unless unequal ones share a number.
        self._longest = _longest_run(self._numbers)

    def places(self, wanted: pa.Array) -> np.ndarray:
        """Return where each of the texts is, -1 for nowhere."""
        found = np.full(len(wanted), -1, np.int64)
        if not len(self._texts) or not len(wanted):
            return found
        numbers = text_numbers(wanted)
        first = np.searchsorted(self._numbers, numbers)
        for step in range(self._longest):
            place = np.minimum(first + step, len(self._numbers) - 1)
            candidates = self._order[place].astype(np.int64)
            is_same = np.asarray(arrow.equal(self._texts.take(pa.array(candidates)), wanted))
            found = np.where((found < 0) & is_same, candidates, found)
        return found


def _hash_numbers(array: pa.Array) -> np.ndarray:
    if not len(array):
        return np.array([], np.uint64)
    _, offsets, content = array.buffers()
    start = int(np.frombuffer(offsets, np.int32, 1, array.offset * 4)[0])
    words = np.frombuffer(content, np.uint8, len(array) * _DIGITS, start)
    if start % 8:
        words = words.copy()
    numbers = np.zeros(len(array), np.uint64)
    for word in words.view(np.uint64).reshape(-1, _WORDS).T:
        numbers = (numbers ^ word) * _PRIME
        numbers ^= numbers >> _HALF
    return numbers


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _longest_run(numbers: np.ndarray) -> int:
    if not len(numbers):
        return 0
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    return int(np.diff(np.append(starts, len(numbers))).max())
