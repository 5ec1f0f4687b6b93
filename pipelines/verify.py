"""Whether an output keeps its promise: every committed row has its image, once, unchanged.

Reads everything and trusts nothing that can be worked out: digests are taken of the bytes in the
table and of the file beside it. Memory holds the images of a few units and the keys of all.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipelines.committed_unit import ROWS_FOLDER, decode_footer, unit_id_of
from pipelines.storage import Storage
from pipelines.store import image_name

__all__ = ["UnitCheck", "nested_outputs", "verify_units"]

_NUM_READERS = 16
_COLUMNS = ("key", "image", "image_sha256", "unit_id")


@dataclass(frozen=True, kw_only=True)
class UnitCheck:
    """What is known of one committed unit; ``problems`` are sentences that name the place."""

    name: str
    num_rows: int
    problems: tuple[str, ...]


def verify_units(storage: Storage) -> Iterator[UnitCheck]:
    """Yield a check of every committed unit of an output."""
    seen: dict[str, str] = {}
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for name in storage.list(ROWS_FOLDER, ".parquet"):
            try:
                rows = _read(storage, name)
            except (OSError, KeyError, ValueError, TypeError) as error:
                problem = f"{name} is not a unit ({error}); delete it, and its rows are made again"
                yield UnitCheck(name=name, num_rows=0, problems=(problem,))
                continue
            found = list(pool.map(lambda row: _row_problem(storage, row), rows))
            problems = [f"{name}, {problem}" for problem in found if problem is not None]
            for row in rows:
                if row["key"] in seen:
                    problems.append(f"{name}, key {row['key']} is also in {seen[row['key']]}")
                seen[row["key"]] = name
            yield UnitCheck(name=name, num_rows=len(rows), problems=tuple(problems))


def nested_outputs(storage: Storage) -> list[str]:
    """Return the folders below ``references`` that are outputs of their own."""
    marker = f"/{ROWS_FOLDER}/unit-"
    names = (name for name in storage.walk("references") if marker in name)
    return sorted({name.partition(marker)[0] for name in names})


def _read(storage: Storage, name: str) -> list[dict[str, Any]]:
    with storage.open(name) as source, pq.ParquetFile(source) as file:
        unit_id = decode_footer(file.metadata).unit_id
        if unit_id != unit_id_of(name):
            raise ValueError(f"it says it is unit {unit_id}")
        return file.read(columns=list(_COLUMNS)).to_pylist() if file.num_row_groups else []


def _row_problem(storage: Storage, row: dict[str, Any]) -> str | None:
    """Return what is wrong with a committed row and its image, None if nothing is."""
    key, told = row["key"], row["image_sha256"]
    if hashlib.sha256(row["image"]["bytes"]).hexdigest() != told:
        return f"key {key}: the image in the table has another sha256 than its row tells"
    path = image_name(key)
    if row["image"]["path"] != path:
        return f"key {key}: its image should be {path}, the row tells {row['image']['path']}"
    try:
        content = storage.read(path)
    except FileNotFoundError:
        return f"key {key}: {path} is missing (the table still has the image)"
    if hashlib.sha256(content).hexdigest() != told:
        return f"key {key}: {path} has another sha256 than its row tells"
    return None
