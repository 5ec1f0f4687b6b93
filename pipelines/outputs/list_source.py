"""The rows of an output as ``images.csv`` lists them, read from the output alone."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from manifests.rows.table import lora_of
from pipelines.ledger.asked_rows import ASKED, asked_tables, is_full_list, loras_text
from pipelines.ledger.ledger import Ledger
from pipelines.outputs.image_list import SCORES, ListSource, ReadAsked
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.damages import Damages
from pipelines.units.output_files import MISSING, DamagedFileError
from pipelines.units.output_table import read_output_rows


def list_source(
    storage: Storage, record: Mapping[str, Any], ledger: Ledger, damages: Damages
) -> ListSource:
    """Return the rows that the latest run was asked for, with ``IMAGE_COLUMNS`` of what is made.

    Where their list is of an earlier release, or cannot be read, these are the rows that were made
    or failed, by row id; then equal rows of the manifest are there once.

    Args:
        storage: The output.
        record: Of the latest run.
        ledger: Of the output.
        damages: Gets what is damaged and left out.
    """
    made = read_output_rows(storage, [*IMAGE_COLUMNS, *SCORES], skip=damages.skip)
    name: str | None = record["manifest"]
    if name is not None and _is_usable(storage, name, damages):
        asked: ReadAsked = partial(asked_tables, storage, name)
    else:
        asked = partial(_columns_of, _tried_rows(storage, ledger, damages))
    return ListSource(
        asked=asked,
        made=made,
        failed=ledger.last_errors,
        base_model=str(record["job"].get("base_model", "")),
    )


def _is_usable(storage: Storage, name: str, damages: Damages) -> bool:
    try:
        return is_full_list(storage, name)
    except FileNotFoundError:
        damages.skip(DamagedFileError(storage.uri, name, MISSING))
    except DamagedFileError as damage:
        damages.skip(damage)
    return False


def _columns_of(table: pa.Table, columns: Sequence[str]) -> Iterator[pa.Table]:
    yield table.select(list(columns))


def _tried_rows(storage: Storage, ledger: Ledger, damages: Damages) -> pa.Table:
    """Return the rows that were made or failed, in columns of ``ASKED``."""
    rows = read_output_rows(storage, ASKED.names, skip=damages.skip).to_pylist()
    for row in rows:
        row["loras"] = loras_text(tuple(map(lora_of, row["loras"])))
    for error in ledger.last_errors.values():
        rows.append({**error, "loras": ";".join(error["loras"])})
    rows.sort(key=lambda row: row["row_id"])
    return pa.Table.from_pylist(rows, schema=ASKED)
