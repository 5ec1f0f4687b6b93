"""A unit's one file: its images as rows, and in its footer the rows that gave no image.

One file, because a unit must appear whole or not at all, and two files cannot appear at once. So a
unit in which every row failed has a file as well, with no rows (and no row group, which readers of
data sets skip). ``errors/`` holds the same failures as a table for people; it is a copy, written
after the commit and written again if it is missing.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_parquet, open_parquet
from pipelines.units.schemas import ERRORS, ROWS

ROWS_FOLDER = "rows"
ERRORS_FOLDER = "errors"

_FOOTER_KEY = b"clora.unit"
_ROWS_PER_GROUP = 100
_NUM_READERS = 16
_NUM_BUSY_READERS = 4
_ERROR_NAMES: frozenset[str] = frozenset(ERRORS.names) - {"failed_at"}

_READ_AHEAD = 512
"""Units that are read before the first of them is taken."""

Given = TypeVar("Given")
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class UnitFooter:
    """What a unit's file says without reading its rows.

    Attributes:
        unit_id: Hash of its row keys and attempts.
        run_id: The run that committed it.
        errors: Failed rows, as ``schemas.ERRORS`` without ``failed_at``, which is one for all.
        failed_at_ms: Milliseconds since 1970, UTC.
        is_abandoned: A later run took the unit's name so that nobody else can; see ``seal``.
        image_sizes: Bytes of each row's image, in order; empty in files of earlier releases.
    """

    unit_id: str
    run_id: str
    errors: Sequence[Mapping[str, Any]]
    failed_at_ms: int
    is_abandoned: bool = False
    image_sizes: Sequence[int] = ()


def rows_name(unit_id: str) -> str:
    """Return the name of a unit's committed file."""
    return f"{ROWS_FOLDER}/unit-{unit_id}.parquet"


def errors_name(unit_id: str) -> str:
    """Return the name of a unit's table of failures."""
    return f"{ERRORS_FOLDER}/unit-{unit_id}.parquet"


def unit_id_of(name: str) -> str:
    """Return the unit that a file of ``rows/`` or ``errors/`` belongs to."""
    return name.rpartition("unit-")[2].removesuffix(".parquet")


def encode_unit(rows: pa.Table, footer: UnitFooter) -> bytes:
    """Return the Parquet file of a unit: ``rows`` (``schemas.ROWS``) and ``footer``."""
    text = json.dumps(
        {
            "unit_id": footer.unit_id,
            "run_id": footer.run_id,
            "errors": list(footer.errors),
            "failed_at_ms": footer.failed_at_ms,
            "is_abandoned": footer.is_abandoned,
            "image_sizes": list(footer.image_sizes),
        }
    )
    return encode_parquet(
        rows_name(footer.unit_id),
        [rows],
        ROWS,
        metadata={_FOOTER_KEY: text.encode()},
        row_group_size=_ROWS_PER_GROUP,
    )


def read_unit(storage: Storage, name: str) -> tuple[list[str], UnitFooter]:
    """Return the keys and the footer of a committed unit, without reading its images.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: It is not the unit that was committed under this name.
    """
    with open_parquet(storage, name) as file:
        footer = read_footer(file.metadata, name)
        if not file.num_row_groups:
            return [], footer
        return file.read(columns=["key"], use_threads=False)["key"].to_pylist(), footer


def read_units(
    storage: Storage,
    read: Callable[[str], Found],
    *,
    skip: Callable[[DamagedFileError], None] | None = None,
) -> Iterator[Found]:
    """Yield what ``read`` returns for the name of each committed unit, read many at a time.

    Args:
        storage: The output.
        read: Reads a unit's file; called in threads. One that was set aside since the names were
            listed (FileNotFoundError) is left out.
        skip: Gets each damaged unit, which is left out; None raises the first.

    Raises:
        DamagedFileError: A unit is damaged, and there is no ``skip``.
    """

    def tried(name: str) -> Found | DamagedFileError | None:
        try:
            return read(name)
        except DamagedFileError as error:
            return error
        except FileNotFoundError:
            return None

    for found in in_threads(tried, storage.list(ROWS_FOLDER, ".parquet")):
        if isinstance(found, DamagedFileError):
            if skip is None:
                raise found
            skip(found)
        elif found is not None:
            yield found


def in_threads(do: Callable[[Given], Found], given: Iterable[Given]) -> Iterator[Found]:
    """Yield what ``do`` returns of each, in order, with few of them under way.

    Where the first does not wait, few threads are quicker than many: they would wait for each
    other.
    """
    left = iter(given)
    start_s, busy_s = time.perf_counter(), time.thread_time()
    yield from [do(first) for first in islice(left, 1)]
    waits = time.perf_counter() - start_s > 2 * (time.thread_time() - busy_s)
    with ThreadPoolExecutor(_NUM_READERS if waits else _NUM_BUSY_READERS) as pool:
        while some := list(islice(left, _READ_AHEAD)):
            yield from pool.map(do, some)


def read_footer(metadata: pq.FileMetaData, name: str) -> UnitFooter:
    """Return the footer of a unit that is open; within ``open_parquet``, which names damage."""
    try:
        text = (metadata.metadata or {})[_FOOTER_KEY]
    except KeyError:
        raise ValueError("not a unit") from None
    footer = UnitFooter(**json.loads(text))
    if footer.unit_id != unit_id_of(name):
        raise ValueError(f"the content of unit {footer.unit_id}")
    for error in footer.errors:
        if frozenset(error) != _ERROR_NAMES:
            raise ValueError(f"a failure with {', '.join(error)}")
    if footer.errors:
        # Arrow refuses values of other types than it wrote.
        error_table(footer)
    if any(size < 0 for size in footer.image_sizes):  # TypeError for what is no number
        raise ValueError("sizes of images below 0")
    return footer


def encode_errors(footer: UnitFooter) -> bytes:
    """Return the Parquet file of a unit's failures."""
    return encode_parquet(errors_name(footer.unit_id), [error_table(footer)], ERRORS)


def error_table(footer: UnitFooter) -> pa.Table:
    """Return a unit's failures as ``schemas.ERRORS``."""
    failed_at = {"failed_at": footer.failed_at_ms}
    return pa.Table.from_pylist([{**error, **failed_at} for error in footer.errors], schema=ERRORS)
