"""The committed rows of an output as one table, without their images."""

import pyarrow as pa
import pyarrow.dataset as pads

from pipelines.committed_unit import ROWS_FOLDER
from pipelines.schemas import ROWS
from pipelines.storage import Storage

__all__ = ["read_rows"]


def read_rows(storage: Storage, columns: list[str]) -> pa.Table:
    """Return ``columns`` (of ``schemas.ROWS``) of all committed rows, in no order to rely on."""
    names = storage.list(ROWS_FOLDER, ".parquet")
    if not names:
        return pa.schema([ROWS.field(name) for name in columns]).empty_table()
    places = [storage.arrow(name) for name in names]
    dataset = pads.dataset(
        [path for _, path in places], filesystem=places[0][0], format="parquet", schema=ROWS
    )
    return dataset.to_table(columns=columns)
