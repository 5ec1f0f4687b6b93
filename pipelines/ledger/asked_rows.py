"""Which rows a run was asked for, kept in the output so that it can be asked how far it is.

``manifests/DIGEST.parquet`` lists every row of a manifest, in its order, with what people know it
by. The record of a run names the file; runs of an unchanged manifest share one. Lists of earlier
releases have key and row id alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from clora_core.recipe.row import Lora, Row
from manifests.rows.checked_rows import shared_values
from manifests.rows.stored_rows import StoredRows
from manifests.tables.arrow_functions import arrow
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, open_parquet, parquet_parts, read_table

MANIFESTS_FOLDER = "manifests"

ASKED = pa.schema(
    [
        ("key", pa.string()),
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("loras", pa.string()),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("carried_json", pa.string()),
    ]
)
"""One row of a manifest; ``loras`` as a manifest writes them, ``NAME:WEIGHT;NAME``."""

_ROWS_PER_TABLE = 16_384
_NAME_DIGITS = 32
_NONE = "None"
"""What a digest has for a value that is not there."""


def asked_name(rows: Sequence[Row]) -> str:
    """Return the file that lists ``rows``: equal rows in equal order share one."""
    digest = hashlib.sha256()
    for table in StoredRows.of(rows).tables():
        # All else is part of the key.
        parts = [table[name] for name in ("key", "row_id")]
        parts += [_loras_texts(table)[0], table["carried_json"]]
        lines = arrow.binary_join_element_wise(
            *parts, " ", null_handling="replace", null_replacement=_NONE
        )
        digest.update("\n".join([*lines.to_pylist(), ""]).encode())
    return f"{MANIFESTS_FOLDER}/{digest.hexdigest()[:_NAME_DIGITS]}.parquet"


def write_asked(storage: Storage, rows: Sequence[Row]) -> str:
    """Write the list of ``rows`` unless it is there, whole; return its name."""
    stored = StoredRows.of(rows)
    name = asked_name(stored)
    try:
        for _ in asked_tables(storage, name):
            pass
    except (FileNotFoundError, DamagedFileError):
        tables = map(_asked_table, stored.tables())
        parts = parquet_parts(name, tables, ASKED, row_group_size=_ROWS_PER_TABLE)
        storage.put_parts(name, parts)
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


def is_full_list(storage: Storage, name: str) -> bool:
    """Return whether a list has all columns of ``ASKED``; False for one of earlier releases.

    Raises:
        FileNotFoundError, DamagedFileError: There is none, or it is damaged.
    """
    with open_parquet(storage, name) as file:
        return set(ASKED.names) <= set(file.schema_arrow.names)


def asked_tables(
    storage: Storage, name: str, columns: Sequence[str] = ASKED.names
) -> Iterator[pa.Table]:
    """Yield ``columns`` of a list of rows, some rows at a time; errors as ``is_full_list``."""
    with open_parquet(storage, name) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns), use_threads=False)


def loras_text(loras: tuple[Lora, ...]) -> str:
    """Return LoRAs as a manifest writes them: names, and weights other than 1."""
    return ";".join(
        lora.name if lora.weight == 1 else f"{lora.name}:{lora.weight:.15g}" for lora in loras
    )


def _asked_table(checked: pa.Table) -> pa.Table:
    """Return rows of ``CHECKED`` as ``ASKED``."""
    loras, shared, places = _loras_texts(checked)
    columns = {name: checked[name] for name in ASKED.names if name in checked.column_names}
    columns["loras"] = loras
    for name in ("method", "width", "height"):
        values = pa.array([values[name] for values in shared], ASKED.field(name).type)
        columns[name] = values.take(places)
    return pa.table({name: columns[name] for name in ASKED.names}, schema=ASKED)


def _loras_texts(checked: pa.Table) -> tuple[pa.Array, list[Mapping[str, Any]], pa.Array]:
    """Return the LoRAs of rows as text, what rows share, and which of these each row has."""
    encoded = checked["shared_json"].combine_chunks().dictionary_encode()
    shared = [shared_values(text) for text in encoded.dictionary.to_pylist()]
    texts = pa.array([loras_text(values["loras"]) for values in shared], pa.string())
    return texts.take(encoded.indices), shared, encoded.indices
