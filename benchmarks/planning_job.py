"""A job of many rows to plan, and units that are committed already; written quickly, never made.

The manifest is Parquet on the embedded world: two LoRAs, a prompt and an id of its own per row.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from manifests.tables.arrow_functions import arrow

ROWS_PER_GROUP = 50_000
COMMITTED_ROWS_PER_UNIT = 256
"""Larger than a run's default units, so that a benchmark does not take an hour to prepare."""

_UNITS_AT_ONCE = 64
_PLACES = 9973


def write_job(
    folder: Path, num_rows: int, *, rows_per_unit: int, plan_on: str | None = None
) -> Path:
    """Write a manifest and its job file; return the job file.

    Args:
        folder: Where both are, and the output ``out``.
        num_rows: Of the manifest.
        rows_per_unit: As in the job file.
        plan_on: As in the job file; None leaves it out, as an earlier release wants it.
    """
    pairs = _pairs()
    with pq.ParquetWriter(folder / "rows.parquet", _rows(pairs, 0, 1).schema) as writer:
        for start in range(0, num_rows, ROWS_PER_GROUP):
            writer.write_table(_rows(pairs, start, min(start + ROWS_PER_GROUP, num_rows)))
    place = {} if plan_on is None else {"plan_on": plan_on}
    job = folder / "job.yaml"
    values = {
        "manifest": "rows.parquet",
        "output": "out",
        "scoring": {"references": 0},
        "resources": {"rows_per_unit": rows_per_unit, **place},
    }
    job.write_text(yaml.safe_dump(values))
    return job


def commit(keys: Iterable[str], num_keys: int, output: Path) -> None:
    """Commit the first ``num_keys`` of ``keys`` in units without images.

    They are not synced to the disk one by one as a run's units are, which would take most of the
    time here and is not what is measured.
    """
    wanted = islice(keys, num_keys)
    numbers = range(0, num_keys, COMMITTED_ROWS_PER_UNIT)
    units = zip(numbers, iter(lambda: list(islice(wanted, COMMITTED_ROWS_PER_UNIT)), []))  # noqa: B905 - as many
    with ProcessPoolExecutor() as processes:
        some = iter(lambda: list(islice(units, _UNITS_AT_ONCE)), [])
        for _ in chain.from_iterable(
            processes.map(_commit, batch, repeat(output)) for batch in _in_turn(some, 16)
        ):
            pass


def _in_turn(items: Iterator[list[tuple[int, list[str]]]], num: int) -> Iterator[list[list]]:
    return iter(lambda: list(islice(items, num)), [])


def _commit(units: list[tuple[int, list[str]]], output: Path) -> None:
    from pipelines.units.committed_unit import UnitFooter, encode_unit, rows_name
    from pipelines.units.schemas import ROWS

    for first, keys in units:
        columns = {
            field.name: pa.array(keys) if field.name == "key" else pa.nulls(len(keys), field.type)
            for field in ROWS
        }
        unit_id = f"{first:064x}"
        footer = UnitFooter(unit_id=unit_id, run_id="benchmark", errors=[], failed_at_ms=0)
        path = output / rows_name(unit_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_unit(pa.table(columns, schema=ROWS), footer))


def _pairs() -> list[tuple[dict[str, str], dict[str, str]]]:
    import emoji_world

    entries = yaml.safe_load(emoji_world.lora_catalog().read_text())["loras"]
    concepts = [entry for entry in entries if entry.get("kind", "concept") == "concept"]
    return [
        (one, other)
        for one in concepts
        for other in concepts
        if one["subject"] < other["subject"] and one["name"] != other["name"]
    ]


def _rows(pairs: list[tuple[dict[str, str], dict[str, str]]], start: int, end: int) -> pa.Table:
    numbers = np.arange(start, end)
    of_pair = pa.array(numbers % len(pairs))
    subjects = [
        pa.array([pair[side]["subject"] for pair in pairs]).take(of_pair) for side in (0, 1)
    ]
    places = pa.array(numbers % _PLACES).cast(pa.string())
    prompt = arrow.binary_join_element_wise(
        "a", subjects[0], "and a", subjects[1], "in place", places, " "
    )
    row_id = arrow.binary_join_element_wise(
        "row", arrow.utf8_lpad(pa.array(numbers).cast(pa.string()), 8, "0"), "-"
    )
    loras = pa.array([[one["name"], other["name"]] for one, other in pairs]).take(of_pair)
    return pa.table({"row_id": row_id, "prompt": prompt, "loras": loras, "seed": numbers})
