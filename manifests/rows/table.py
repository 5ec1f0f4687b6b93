"""Rows as Arrow tables and back: Arrow is planned, stored and sent, a ``Row`` is what code reads.

The one place that knows which column a field of ``Row`` is. Regions and settings are JSON columns;
all others have the fields' names.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import Any

import pyarrow as pa

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.key import sampler_json
from clora_core.recipe.reading.embedded import EmbeddedWord
from clora_core.recipe.row import Lora, Region, Row

LORA = pa.struct(
    [
        ("name", pa.string()),
        ("uri", pa.string()),
        ("digest", pa.string()),
        ("kind", pa.string()),
        ("weight", pa.float64()),
        ("subject", pa.string()),
        ("trigger", pa.string()),
        ("region_json", pa.string()),
        ("a1111_hash", pa.string()),
        ("problem", pa.string()),
        ("words", pa.list_(pa.struct([("name", pa.string()), ("num_vectors", pa.int32())]))),
    ]
)

ROW = pa.schema(
    [
        ("key", pa.string()),
        ("base_model_digest", pa.string()),
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("loras", pa.list_(LORA)),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("text_chunks", pa.int32()),
        ("sampler_json", pa.string()),
        ("carried_json", pa.string()),
        ("remarks", pa.list_(pa.string())),
    ]
)
"""One row to make."""

_LORA_FIELDS = tuple(field.name for field in LORA if field.name not in ("region_json", "words"))
_ROW_FIELDS = tuple(name for name in ROW.names if name not in ("loras", "sampler_json", "remarks"))
_ROWS_PER_CHUNK = 10_000


def row_table(rows: Iterable[Row]) -> pa.Table:
    """Return the rows as a table of ``ROW``, in order."""
    return pa.Table.from_batches(_batches(iter(rows)), schema=ROW)


def rows_of(table: pa.Table) -> list[Row]:
    """Return the rows of a table that has the columns of ``ROW``, in order."""
    return [row_of(values) for values in table.select(ROW.names).to_pylist()]


def row_of(values: Mapping[str, Any]) -> Row:
    """Return the row whose columns are ``values``; others are passed over.

    Remarks may be missing: earlier releases made none.
    """
    return Row(
        **{name: values[name] for name in _ROW_FIELDS},
        loras=tuple(map(lora_of, values["loras"])),
        sampler=sampler_of(values["sampler_json"]),
        remarks=tuple(values.get("remarks") or ()),
    )


def lora_of(values: Mapping[str, Any]) -> Lora:
    """Return the LoRA whose struct is ``values``; what an output does not keep may be missing."""
    region = values["region_json"]
    return Lora(
        **{name: values[name] for name in _LORA_FIELDS if name in values},
        region=None if region is None else Region.from_json(region),
        words=tuple(EmbeddedWord(**word) for word in values.get("words") or ()),
    )


def lora_values(lora: Lora) -> dict[str, Any]:
    """Return the struct of ``lora``."""
    region = None if lora.region is None else lora.region.to_json()
    words = [asdict(word) for word in lora.words]
    plain = {name: getattr(lora, name) for name in _LORA_FIELDS}
    return plain | {"region_json": region, "words": words}


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    while chunk := list(islice(rows, _ROWS_PER_CHUNK)):
        columns = {name: [getattr(row, name) for row in chunk] for name in _ROW_FIELDS}
        columns["loras"] = [[lora_values(lora) for lora in row.loras] for row in chunk]
        columns["remarks"] = [list(row.remarks) for row in chunk]
        columns["sampler_json"] = [sampler_json(row.sampler) for row in chunk]
        yield pa.RecordBatch.from_pydict(columns, schema=ROW)


@lru_cache(maxsize=256)
def sampler_of(text: str) -> SamplerConfig:
    """Return the settings that ``sampler_json`` wrote."""
    return SamplerConfig.model_validate_json(text)
