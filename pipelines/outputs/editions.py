"""The editions of an output: published one after another, the newest named by ``latest.json``.

An edition is one file whose number nobody else can take, so of two runs that publish at once one is
first and the other looks again: at the same rows it has nothing to add, and rows that were read
before those of the newest edition are out of date and stay unpublished. ``latest.json`` is a copy
for readers: replaced in one step, always of a whole edition, and put right by the next run if a
crash kept it from being written. An edition that is damaged is passed over: the next one is
compared with the newest that can be read, and gets a higher number than any.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

from pipelines.outputs.edition import (
    Changes,
    EditionFacts,
    compare,
    edition_digest,
    encode_edition,
    read_edition,
)
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_json, read_json

LATEST = "latest.json"
EDITIONS_FOLDER = "editions"


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


def newest_edition(
    storage: Storage, *, note: Callable[[str], None]
) -> tuple[pa.Table, EditionFacts] | None:
    """Return the newest edition that can be read; None if there is none.

    ``note`` gets a sentence for each newer one that is damaged.
    """
    return _newest(storage, _numbers(storage), note)


def _newest(
    storage: Storage, numbers: Sequence[int], note: Callable[[str], None]
) -> tuple[pa.Table, EditionFacts] | None:
    for number in reversed(numbers):
        try:
            return read_edition(storage, edition_name(number))
        except DamagedFileError as error:
            note(str(error))
        except FileNotFoundError:
            # Dropped since the names were listed.
            continue
    return None


def publish_edition(
    storage: Storage,
    table: pa.Table,
    *,
    read_at: str,
    run_id: str,
    num_missing: int,
    keep: int,
    note: Callable[[str], None],
) -> Published:
    """Publish the rows as the next edition, unless there is nothing new in them.

    Args:
        storage: The output.
        table: Of ``edition.EDITION``; every image in it is there.
        read_at: When the catalog's rows were read, ISO 8601, UTC.
        run_id: The run that made them.
        num_missing: Rows of the catalog that are not in ``table``.
        keep: Past editions that stay beside the newest.
        note: Gets a sentence for each damaged edition that was passed over.
    """
    digest = edition_digest(table)
    while True:
        notes: list[str] = []
        # Listed once: an edition that another run publishes meanwhile takes this one's number.
        numbers = _numbers(storage)
        number = max(numbers, default=0) + 1
        newest = _newest(storage, numbers, notes.append)
        changes = compare(table, None if newest is None else newest[0])
        # A damaged edition is followed by a whole one, whatever its rows were.
        if newest is not None and newest[1].number == number - 1:
            is_same = newest[1].digest == digest
            if is_same or newest[1].read_at > read_at:
                point_at_newest(storage)
                return Published(
                    outcome="unchanged" if is_same else "outdated",
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
        name = edition_name(number)
        if storage.put_if_absent(name, encode_edition(name, table, facts)):
            break
    for text in notes:
        note(text)
    point_at_newest(storage)
    dropped = _drop_old(storage, keep)
    return Published(outcome="published", number=number, changes=changes, dropped=dropped)


def edition_name(number: int) -> str:
    """Return the file of an edition."""
    return f"{EDITIONS_FOLDER}/{number:09d}.parquet"


def point_at_newest(storage: Storage) -> None:
    """Make ``latest.json`` name the newest edition, whoever else is writing it."""
    while True:
        newest = newest_edition(storage, note=_already_named)
        if newest is None or _pointed_at(storage) == newest[1].number:
            return
        facts = newest[1]
        values = {**asdict(facts), "rows": edition_name(facts.number)}
        storage.put(LATEST, encode_json(values))
        # Looked at again: another run may have published, and written this file, before we did.


def _already_named(_text: str) -> None:
    """Damaged editions were named by the run that published past them."""


def _pointed_at(storage: Storage) -> int | None:
    """Return the edition that ``latest.json`` names; None if it is missing or damaged."""
    try:
        return read_json(storage, LATEST, lambda values: int(values["number"]))
    except (FileNotFoundError, DamagedFileError):
        return None


def _drop_old(storage: Storage, keep: int) -> tuple[int, ...]:
    """Drop the files of all but the newest edition and ``keep`` before it; images stay."""
    numbers = _numbers(storage)
    dropped = numbers[: -(keep + 1)]
    for number in dropped:
        storage.delete(edition_name(number))
    return tuple(dropped)


def _numbers(storage: Storage) -> list[int]:
    """Return the numbers of the editions, ascending; files that are called otherwise are none."""
    stems = (
        name.rpartition("/")[2].removesuffix(".parquet")
        for name in storage.list(EDITIONS_FOLDER, ".parquet")
    )
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal())
