"""What is made and what failed, read from the committed units and from nothing else.

There is no state beside the data: a key is made if a committed unit holds its image; its attempts
are counted in the units' footers. Delete a unit's file and its rows are made again.

A unit that is damaged may hold any rows, so a run must not make rows without it (``read_ledger``
refuses). A command that only looks can name it and use the rest (``survey``).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any

from clora_core.recipe.errors import CloraError
from manifests.text.wording import first_lines
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import (
    ERRORS_FOLDER,
    UnitFooter,
    encode_errors,
    errors_name,
    read_unit,
    read_units,
)
from pipelines.units.output_files import DamagedFileError

_MAX_NAMED = 20


class LedgerError(CloraError):
    """Committed units are damaged; the message names each and the way out."""


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """What the ledger knows of a row that was tried in vain: how often, and last in which unit."""

    attempts: int
    unit_id: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The committed units of one output.

    Attributes:
        made: Keys with an image.
        image_sizes: Bytes of the image, by key; units of earlier releases do not say.
        failed: Rows that were tried and have none.
        last_errors: The last failure of each of them, as a row of ``schemas.ERRORS``.
        footers: Every unit's footer that names failures.
        unit_ids: Of all committed units.
        abandoned: Those of them that hold nothing, so that nobody commits them; see ``seal``.
        num_doubled: Images beyond the first of a key. 0, or the promise is broken.
        content_sha256: Another one whenever a unit with rows or failures is added, replaced or set
            aside.
        damaged: Files among the units that cannot be read; all else is without their rows.
    """

    made: frozenset[str]
    image_sizes: Mapping[str, int]
    failed: Mapping[str, FailedRow]
    last_errors: Mapping[str, Mapping[str, Any]]
    footers: tuple[UnitFooter, ...]
    unit_ids: frozenset[str]
    abandoned: frozenset[str]
    num_doubled: int
    content_sha256: str
    damaged: tuple[DamagedFileError, ...] = ()

    def made_tables(self):
        import pyarrow as pa

        yield pa.table({"key": pa.array(sorted(self.made), pa.string())})

    def unit_tables(self):
        import pyarrow as pa

        yield pa.table({"unit_id": pa.array(sorted(self.unit_ids), pa.string())})

    @property
    def failures(self):
        import pyarrow as pa

        return pa.table(
            {
                "key": pa.array(list(self.failed), pa.string()),
                "attempt": pa.array([f.attempts for f in self.failed.values()], pa.int32()),
                "unit_id": pa.array([f.unit_id for f in self.failed.values()], pa.string()),
            }
        )


def read_ledger(storage: Storage) -> Ledger:
    """Return the ledger of an output, empty if there is nothing yet.

    Raises:
        LedgerError: Units are damaged, so what is made cannot be known.
    """
    ledger = survey(storage)
    if ledger.damaged:
        raise LedgerError(_sentence(storage, ledger.damaged))
    return ledger


def survey(storage: Storage) -> Ledger:
    """Return the ledger of an output without its damaged units, which are named in it."""
    damaged: list[DamagedFileError] = []
    units = list(read_units(storage, partial(read_unit, storage), skip=damaged.append))
    num_rows = sum(len(keys) for keys, _ in units)
    made = frozenset(key for keys, _ in units for key in keys)
    footers = tuple(footer for _, footer in units if footer.errors)
    failed: dict[str, FailedRow] = {}
    last_errors: dict[str, Mapping[str, Any]] = {}
    for footer, error in _in_order_of_attempts(footers):
        if error["key"] not in made:
            attempts = int(error["attempt"])
            failed[error["key"]] = FailedRow(attempts=attempts, unit_id=footer.unit_id)
            last_errors[error["key"]] = error
    return Ledger(
        made=made,
        image_sizes={
            key: size
            for keys, footer in units
            for key, size in zip(keys, footer.image_sizes, strict=False)
        },
        failed=failed,
        last_errors=last_errors,
        footers=footers,
        unit_ids=frozenset(footer.unit_id for _, footer in units),
        abandoned=frozenset(footer.unit_id for _, footer in units if footer.is_abandoned),
        num_doubled=num_rows - len(made),
        content_sha256=_content_sha256(footer for _, footer in units),
        damaged=tuple(damaged),
    )


def restore_errors(storage: Storage, ledger: Ledger) -> int:
    """Write the tables of failures that are missing or of another size; return how many."""
    present = dict(storage.sizes(ERRORS_FOLDER))
    tables = {errors_name(footer.unit_id): encode_errors(footer) for footer in ledger.footers}
    wanted = {name: table for name, table in tables.items() if present.get(name) != len(table)}
    storage.put_all(wanted)
    return len(wanted)


def _content_sha256(footers: Iterable[UnitFooter]) -> str:
    """Return the digest of what units hold: which rows, and the one commit that made them."""
    digest = hashlib.sha256()
    for footer in sorted(footers, key=lambda footer: footer.unit_id):
        if not footer.is_abandoned:
            commit = [footer.unit_id, footer.run_id, footer.failed_at_ms, list(footer.image_sizes)]
            digest.update(json.dumps(commit).encode() + b"\n")
    return digest.hexdigest()


def _sentence(storage: Storage, damaged: Sequence[DamagedFileError]) -> str:
    """Return every damaged unit, a line each, and the way out."""
    lines = first_lines([f"{error.name}: {error.reason}" for error in damaged], _MAX_NAMED)
    return "\n".join(
        [
            f"{len(damaged):,} committed unit(s) in {storage.uri} are damaged:",
            *(f"  {line}" for line in lines),
            f"`clora verify {quote(storage.uri)} --repair` sets them aside, and the same command "
            "then makes their rows again",
        ]
    )


def _in_order_of_attempts(
    footers: Iterable[UnitFooter],
) -> list[tuple[UnitFooter, Mapping[str, Any]]]:
    pairs = [(footer, error) for footer in footers for error in footer.errors]
    return sorted(pairs, key=lambda pair: (pair[1]["attempt"], pair[0].unit_id))
