"""Which rows a run was asked for, kept in the output so that it can be asked how far it is.

``manifests/DIGEST.parquet`` lists key and row id of every row of a manifest, in its order. The
record of a run names the file; runs of an unchanged manifest share one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from clora_core.recipe.row import Row
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_parquet, read_table

MANIFESTS_FOLDER = "manifests"

ASKED = pa.schema([("key", pa.string()), ("row_id", pa.string())])

_ROWS_PER_TABLE = 65_536
_NAME_DIGITS = 32


def asked_name(rows: Sequence[Row]) -> str:
    """Return the file that lists ``rows``: equal rows in equal order share one."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.key} {row.row_id}\n".encode())
    return f"{MANIFESTS_FOLDER}/{digest.hexdigest()[:_NAME_DIGITS]}.parquet"


def write_asked(storage: Storage, rows: Sequence[Row]) -> str:
    """Write the list of ``rows`` unless it is there, whole; return its name."""
    name = asked_name(rows)
    try:
        read_table(storage, name, ASKED.names)
    except (FileNotFoundError, DamagedFileError):
        storage.put(name, encode_parquet(name, _tables(rows), ASKED))
    return name


def asked_keys(
    storage: Storage, name: str, *, skip: Callable[[DamagedFileError], None]
) -> list[str] | None:
    """Return the keys of a list of rows, in its order.

    A list that is damaged or missing is passed to ``skip``, and the answer is None.
    """
    try:
        return read_table(storage, name, ["key"])["key"].to_pylist()
    except DamagedFileError as error:
        skip(error)
    except FileNotFoundError:
        skip(DamagedFileError(storage.uri, name, "is missing"))
    return None


def _tables(rows: Sequence[Row]) -> Iterator[pa.Table]:
    left = iter(rows)
    while chunk := list(islice(left, _ROWS_PER_TABLE)):
        columns = [[row.key for row in chunk], [row.row_id for row in chunk]]
        yield pa.table(columns, schema=ASKED)
