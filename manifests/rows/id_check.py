"""Ids that stand for two different rows; the same row twice is no mistake.

Rows checked one after the other are remembered by their ids. Of a manifest that was checked in
parts, tables of ``IDS`` say what each id was used for, and are compared once all are there.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa

from clora_core.recipe.row import Row
from manifests.text.problems import Problem
from manifests.text.wording import shown

IDS = pa.schema(
    [
        ("place", pa.int64()),
        ("row_id", pa.string()),
        ("content", pa.binary(16)),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("is_reported", pa.bool_()),
    ]
)
"""One use of an id. ``place`` orders the rows of a manifest; where ``is_reported`` is false a
problem of the file speaks of the ids, and no more is said of them."""


@dataclass(frozen=True, slots=True)
class UsedId:
    """One use of an id.

    Attributes:
        row_id: As the row's author wrote it.
        content: Digest of what the row says.
        file: Where it stands.
        line: Where it stands.
    """

    row_id: str
    content: bytes
    file: str
    line: int

    @classmethod
    def of(cls, row: Row, *, row_id: str, place: str, line: int) -> "UsedId":
        """Return the use of an id by a row with its key."""
        return cls(row_id, content_digest(row.key, row.carried_json), place, line)


class RowIds:
    """The ids of rows that come one after the other."""

    def __init__(self) -> None:
        self._first: dict[str, UsedId] = {}

    def problem(self, used: UsedId) -> Problem | None:
        """Return what is wrong with an id in this row, and remember it."""
        first = self._first.setdefault(used.row_id, used)
        return None if first.content == used.content else _problem(used, first)


def content_digest(key: str, carried_json: str) -> bytes:
    """Return what two rows with one id must have in common."""
    return sha256(f"{key}\0{carried_json}".encode()).digest()[:16]


def id_partitions(row_ids: Sequence[str], num_partitions: int) -> np.ndarray:
    """Return the partition of each id, the same in every process."""
    hashes = np.fromiter((zlib.crc32(each.encode()) for each in row_ids), np.int64, len(row_ids))
    return hashes % num_partitions


def id_problems(ids: pa.Table) -> list[tuple[int, Problem]]:
    """Return every use of an id that was used for something else before, with its place.

    Args:
        ids: All uses of some ids, of ``IDS``, in any order.
    """
    ids = ids.combine_chunks()
    if not len(ids):
        return []
    places = np.asarray(ids["place"].chunk(0))
    codes = np.asarray(ids["row_id"].chunk(0).dictionary_encode().indices)
    order = np.lexsort((places, codes))
    contents = ids["content"].chunk(0)
    halves = np.frombuffer(contents.buffers()[1], np.int64).reshape(-1, 2)
    halves = halves[contents.offset : contents.offset + len(contents)][order]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    first = np.repeat(starts, np.diff(starts, append=len(order)))
    differs = (halves != halves[first]).any(axis=1)
    found: list[tuple[int, Problem]] = []
    for number in np.flatnonzero(differs).tolist():
        (row,) = ids.slice(int(order[number]), 1).to_pylist()
        if row["is_reported"]:
            (one,) = ids.slice(int(order[first[number]]), 1).to_pylist()
            found.append((row["place"], _problem(_used(row), _used(one))))
    return sorted(found, key=lambda pair: pair[0])


def _used(row: dict[str, object]) -> UsedId:
    return UsedId(**{name: row[name] for name in ("row_id", "content", "file", "line")})  # pyright: ignore[reportArgumentType]


def _problem(used: UsedId, first: UsedId) -> Problem:
    where = f"line {first.line}" if first.file == used.file else f"{first.file}, line {first.line}"
    text = f"is also the id of {where}, which says something else, got {shown(used.row_id)}; "
    return Problem(
        place=used.file,
        line=used.line,
        row_id=used.row_id[:200],
        field="row_id",
        problem=text + "ids are unique",
    )
