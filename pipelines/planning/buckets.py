"""Buckets of about equal size that the sorted rows of a manifest are dealt to, by drawn borders.

Rows that stand together stay so: a bucket holds all that is ordered between two borders. Both
executors find borders from rows that are drawn all over the manifest.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipelines.planning.cutting import groups_of

SAMPLES = 64
"""About so many rows of a bucket are looked at to find its borders."""


def sampled(num_rows: int, step: int, *, seed: int) -> np.ndarray:
    """Return a place of each stretch of ``step`` rows, ascending.

    Drawn, because a manifest is often a grid, in which every 512th row may be of one method: all
    borders would be there, and the other rows in two buckets.
    """
    starts = np.arange(0, num_rows, step)
    drawn = np.random.default_rng(seed).integers(0, step, len(starts))
    return np.minimum(starts + drawn, num_rows - 1)


def bucket_borders(samples: Iterable[str], num_buckets: int) -> list[str]:
    """Return where buckets of about equal size begin, but for the first."""
    known = sorted(samples) or [""]
    places = [bucket * len(known) // num_buckets for bucket in range(1, num_buckets)]
    return [known[place] for place in places]


def bucket_of(rows: pa.Table, borders: Sequence[str]) -> np.ndarray:
    """Return the bucket of each row of a table of ``ORDERED`` [row]."""
    if not borders:
        return np.zeros(len(rows), np.int64)
    found = [bisect_right(borders, order) for order in rows["order"].to_pylist()]
    return np.array(found, np.int64)


def bucket_sizes(rows: pa.Table, numbers: np.ndarray) -> Counter[tuple[int, str]]:
    """Return how many rows of each group are in each bucket."""
    return Counter(zip(numbers.tolist(), groups_of(rows).to_pylist(), strict=True))


def bucket_edges(
    sizes: Mapping[tuple[int, str], int], num_buckets: int
) -> Iterator[tuple[int, bool]]:
    """Yield ``num_before`` and ``is_continued`` of each bucket, as ``cut_units`` takes them.

    Args:
        sizes: Rows by bucket and group.
        num_buckets: How many there are.
    """
    groups: list[list[str]] = [[] for _ in range(num_buckets)]
    for bucket, group in sorted(sizes):
        groups[bucket].append(group)
    before: Counter[str] = Counter()
    for bucket, own in enumerate(groups):
        following = next((each for each in groups[bucket + 1 :] if each), [])
        is_continued = bool(own and following) and own[-1] == following[0]
        yield before[own[0]] if own else 0, is_continued
        for group in own:
            before[group] += sizes[bucket, group]
