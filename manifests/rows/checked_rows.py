"""Checked rows as narrow Arrow tables: what differs in columns, what many rows share as one text.

A million rows as Python objects take gigabytes, and most of that is said again and again, because
rows share their LoRAs, settings and sizes. Tables of ``CHECKED`` are what is checked, kept, sorted
and planned; ``row_columns`` writes the rows of a few of them out as ``table.ROW``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any

import pyarrow as pa

from clora_core.recipe.key import sampler_json
from clora_core.recipe.row import Row
from manifests.rows.table import ROW, lora_of, lora_values, sampler_of
from manifests.tables.arrays import compacted, one_array

CHECKED = pa.schema(
    [
        ("place", pa.int64()),
        ("key", pa.string()),
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("seed", pa.int64()),
        ("text_chunks", pa.int32()),
        ("carried_json", pa.string()),
        ("shared_json", pa.dictionary(pa.int32(), pa.string())),
    ]
)
"""One row. ``place`` orders the rows of a manifest; ``shared_json`` is from ``shared_json``."""

OWN = tuple(name for name in CHECKED.names if name not in ("place", "shared_json"))
SHARED = ("base_model_digest", "loras", "method", "width", "height", "sampler", "remarks")
_ROWS_PER_TABLE = 8192
_own_values, _shared_values = attrgetter(*OWN), attrgetter(*SHARED)


def checked_tables(rows: Iterable[Row], *, first_place: int = 0) -> Iterator[pa.Table]:
    """Yield the rows as tables of ``CHECKED``, in order, taken one at a time."""
    known: dict[tuple[Any, ...], str] = {}
    left, place = iter(rows), first_place
    while chunk := list(islice(left, _ROWS_PER_TABLE)):
        own = zip(*map(_own_values, chunk), strict=True)
        columns: dict[str, Any] = dict(zip(OWN, own, strict=True))
        columns["place"] = range(place, place + len(chunk))
        columns["shared_json"] = [_known_text(row, known) for row in chunk]
        yield pa.table(columns, schema=CHECKED)
        place += len(chunk)


def shared_json(row: Row) -> str:
    """Return what ``row`` shares with many others, as JSON."""
    return json.dumps(
        {
            "base_model_digest": row.base_model_digest,
            "loras": [lora_values(lora) for lora in row.loras],
            "method": row.method,
            "width": row.width,
            "height": row.height,
            "sampler_json": sampler_json(row.sampler),
            "remarks": row.remarks,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


@lru_cache(maxsize=4096)
def shared_values(text: str) -> Mapping[str, Any]:
    """Return the fields of ``Row`` that ``shared_json`` wrote."""
    values = json.loads(text)
    return {
        "base_model_digest": values["base_model_digest"],
        "loras": tuple(map(lora_of, values["loras"])),
        "method": values["method"],
        "width": values["width"],
        "height": values["height"],
        "sampler": sampler_of(values["sampler_json"]),
        "remarks": tuple(values["remarks"]),
    }


def rows_of_checked(table: pa.Table) -> Iterator[Row]:
    """Yield the rows of a table of ``CHECKED``, in order."""
    shared = table["shared_json"].to_pylist()
    columns = [table[name].to_pylist() for name in OWN]
    for text, *own in zip(shared, *columns, strict=True):
        yield Row(**dict(zip(OWN, own, strict=True)), **shared_values(text))


def row_columns(table: pa.Table) -> pa.Table:
    """Return the rows of a table of ``CHECKED`` as ``table.ROW``."""
    # A slice has the dictionary of the whole table, of which it may use little.
    table = compacted(table)
    shared = one_array(table["shared_json"])
    texts = [json.loads(text) for text in shared.dictionary.to_pylist()]
    types = {name: ROW.field(name).type for name in texts[0]} if texts else {}
    written = {
        name: pa.array([values[name] for values in texts], kind).take(shared.indices)
        for name, kind in types.items()
    }
    columns = [
        table[name]
        if name in OWN
        else written.get(name, pa.nulls(len(table), ROW.field(name).type))
        for name in ROW.names
    ]
    return pa.table(columns, schema=ROW)


def _known_text(row: Row, known: dict[tuple[Any, ...], str]) -> str:
    values = _shared_values(row)
    text = known.get(values)
    if text is None:
        if len(known) >= _ROWS_PER_TABLE:
            known.clear()
        text = known[values] = shared_json(row)
    return text
