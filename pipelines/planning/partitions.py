"""Which partition a key is in: rows with one key are in one, and all are about as large."""

import numpy as np
import pyarrow as pa

ROWS_PER_PARTITION = 32_768
_CHARACTERS = 4
_NUMBERS = 16**_CHARACTERS


def num_partitions(num_rows: int) -> int:
    """Return into how many partitions so many rows are dealt."""
    return min(max(1, -(-num_rows // ROWS_PER_PARTITION)), _NUMBERS)


def partition_of(keys: pa.ChunkedArray | pa.Array, num: int) -> np.ndarray:
    """Return the partition, 0 to ``num`` - 1, of each key [key].

    Keys are hashes in hexadecimal digits, so their first ones are as good as another hash.
    """
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    if num == 1 or not len(keys):
        return np.zeros(len(keys), np.int64)
    _, ends_buffer, text_buffer = keys.buffers()
    ends = np.frombuffer(ends_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer else np.zeros(1, np.uint8)
    starts, stops = ends[:-1].astype(np.int64), ends[1:].astype(np.int64)
    numbers = np.zeros(len(keys), np.int64)
    for place in range(_CHARACTERS):
        at = starts + place
        character = np.where(at < stops, text[np.minimum(at, len(text) - 1)], 0)
        # "0" to "9" are 48 to 57, "a" to "f" 97 to 102.
        digit = np.where(character >= 97, character - 87, character) & 15
        numbers = numbers * 16 + digit
    return numbers * num // _NUMBERS
