"""The editions of an output: published one after another, the newest named by ``latest.json``.

An edition is one file whose number nobody else can take, so of two runs that publish at once one is
first and the other looks again: at the same rows it has nothing to add, and rows that were read
before those of the newest edition are out of date and stay unpublished. ``latest.json`` is a copy
for readers: replaced in one step, always of a whole edition, and put right by the next run if a
crash kept it from being written.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

from pipelines.edition import (
    Changes,
    EditionFacts,
    compare,
    decode_edition,
    edition_digest,
    encode_edition,
)
from pipelines.storage import Storage

__all__ = ["LATEST", "EditionsError", "Published", "newest_edition", "publish_edition"]

LATEST = "latest.json"
EDITIONS_FOLDER = "editions"


class EditionsError(Exception):
    """A file among the editions is none; the message names it and the way out."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What became of an edition.

    Attributes:
        outcome: ``published``; ``unchanged``, the newest edition has the same rows; ``outdated``,
            the newest edition's rows were read later.
        number: Of the edition that is the newest now.
        changes: Against the edition before.
        dropped: Numbers of past editions that were dropped.
    """

    outcome: Literal["published", "unchanged", "outdated"]
    number: int
    changes: Changes
    dropped: tuple[int, ...] = ()


def newest_edition(storage: Storage) -> tuple[pa.Table, EditionFacts] | None:
    """Return the newest edition; None if nothing was published yet.

    Raises:
        EditionsError: Its file is no edition.
    """
    names = storage.list(EDITIONS_FOLDER, ".parquet")
    return _read(storage, names[-1]) if names else None


def publish_edition(
    storage: Storage, table: pa.Table, *, read_at: str, run_id: str, num_missing: int, keep: int
) -> Published:
    """Publish the rows as the next edition, unless there is nothing new in them.

    Args:
        storage: The output.
        table: Of ``edition.EDITION``; every image in it is there.
        read_at: When the catalog's rows were read, ISO 8601, UTC.
        run_id: The run that made them.
        num_missing: Rows of the catalog that are not in ``table``.
        keep: Past editions that stay beside the newest.

    Raises:
        EditionsError: A file among the editions is none.
    """
    digest = edition_digest(table)
    while True:
        newest = newest_edition(storage)
        changes = compare(table, None if newest is None else newest[0])
        number = 1
        if newest is not None:
            number = newest[1].number + 1
            if newest[1].digest == digest or newest[1].read_at > read_at:
                _point_at_newest(storage)
                same = newest[1].digest == digest
                return Published(
                    outcome="unchanged" if same else "outdated",
                    number=newest[1].number,
                    changes=changes,
                )
        facts = EditionFacts(
            number=number,
            digest=digest,
            read_at=read_at,
            run_id=run_id,
            num_rows=table.num_rows,
            num_missing=num_missing,
            num_added=len(changes.added),
            num_changed=len(changes.changed),
            num_removed=len(changes.removed),
        )
        if storage.put_if_absent(edition_name(number), encode_edition(table, facts)):
            break
    _point_at_newest(storage)
    dropped = _drop_old(storage, keep)
    return Published(outcome="published", number=number, changes=changes, dropped=dropped)


def edition_name(number: int) -> str:
    """Return the file of an edition."""
    return f"{EDITIONS_FOLDER}/{number:09d}.parquet"


def _point_at_newest(storage: Storage) -> None:
    """Make ``latest.json`` name the newest edition, whoever else is writing it."""
    while True:
        newest = newest_edition(storage)
        if newest is None or _pointed_at(storage) == newest[1].number:
            return
        facts = newest[1]
        told = {**asdict(facts), "rows": edition_name(facts.number)}
        storage.put(LATEST, json.dumps(told, indent=2).encode())
        # Looked at again: another run may have published, and written this file, before we did.


def _pointed_at(storage: Storage) -> int | None:
    if not storage.exists(LATEST):
        return None
    told: Mapping[str, int] = json.loads(storage.read(LATEST))
    return told["number"]


def _drop_old(storage: Storage, keep: int) -> tuple[int, ...]:
    """Drop the files of all but the newest edition and ``keep`` before it; images stay."""
    dropped: list[int] = []
    for name in storage.list(EDITIONS_FOLDER, ".parquet")[: -(keep + 1)]:
        storage.delete(name)
        dropped.append(_number(name))
    return tuple(dropped)


def _number(name: str) -> int:
    return int(name.rpartition("/")[2].removesuffix(".parquet"))


def _read(storage: Storage, name: str) -> tuple[pa.Table, EditionFacts]:
    try:
        return decode_edition(storage.read(name))
    except ValueError as error:
        raise EditionsError(f"{storage.uri}/{name} {error}; move it elsewhere") from error
