"""Which rows a run was asked for, kept in the output so that it can be asked how far it is.

``manifests/DIGEST.parquet`` lists every row of a manifest, in its order, with what people know it
by. The record of a run names the file; runs of an unchanged manifest share one. Lists of earlier
releases have key and row id alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from clora_core.recipe.row import Lora, Row
from pipelines.storage.storage import Storage
from pipelines.units.output_files import (
    DamagedFileError,
    encode_parquet,
    open_parquet,
    read_table,
)

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

_PLAIN = [name for name in ASKED.names if name != "loras"]
_ROWS_PER_TABLE = 16_384
_NAME_DIGITS = 32
_MAX_KNOWN = 4096


def asked_name(rows: Sequence[Row]) -> str:
    """Return the file that lists ``rows``: equal rows in equal order share one."""
    digest, loras_text_of = hashlib.sha256(), _remembering(loras_text)
    for row in rows:
        # All else is part of the key.
        line = f"{row.key} {row.row_id} {loras_text_of(row.loras)} {row.carried_json}\n"
        digest.update(line.encode(errors="surrogatepass"))
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


def _tables(rows: Sequence[Row]) -> Iterator[pa.Table]:
    left, loras_text_of = iter(rows), _remembering(loras_text)
    while chunk := list(islice(left, _ROWS_PER_TABLE)):
        columns = {name: [getattr(row, name) for row in chunk] for name in _PLAIN}
        columns["loras"] = [loras_text_of(row.loras) for row in chunk]
        yield pa.Table.from_pydict(columns, schema=ASKED)


def _remembering(
    text_of: Callable[[tuple[Lora, ...]], str],
) -> Callable[[tuple[Lora, ...]], str]:
    """Return the function with its last answers by identity: rows share their LoRAs' tuple."""
    known: dict[int, tuple[tuple[Lora, ...], str]] = {}

    def text(loras: tuple[Lora, ...]) -> str:
        found = known.get(id(loras))
        if found is None:
            if len(known) == _MAX_KNOWN:
                known.clear()
            # The tuple is kept, so that no other gets its identity meanwhile.
            found = known[id(loras)] = (loras, text_of(loras))
        return found[1]

    return text
