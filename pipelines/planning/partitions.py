"""Into how many partitions rows are dealt, and which one a key is in."""

import numpy as np
import pyarrow as pa

from manifests.tables.text_numbers import text_numbers

ROWS_PER_PARTITION = 16_384
MANY_PARTITIONS = 256
"""Beyond that partitions grow instead: each has a piece of its own in whatever is written."""

_MOST_TIMES = 4


def num_partitions(num_rows: int) -> int:
    """Return into how many partitions so many rows are dealt."""
    few, many = (
        -(-num_rows // size) for size in (ROWS_PER_PARTITION * _MOST_TIMES, ROWS_PER_PARTITION)
    )
    return max(1, few, min(many, MANY_PARTITIONS))


def partition_of(keys: pa.ChunkedArray | pa.Array, num: int) -> np.ndarray:
    """Return the partition, 0 to ``num`` - 1, of each key [key]; equal keys are in one."""
    return (text_numbers(keys) % np.uint64(num)).astype(np.int64)
