"""The committed rows of an output as one table, without their images."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.committed_unit import ROWS_FOLDER
from pipelines.schemas import ROWS
from pipelines.storage import Storage

__all__ = ["read_rows"]

_NUM_READERS = 16


def read_rows(storage: Storage, columns: Sequence[str]) -> pa.Table:
    """Return ``columns`` (of ``schemas.ROWS``) of all committed rows, in no order to rely on."""
    schema = pa.schema([ROWS.field(name) for name in columns])

    def read(name: str) -> pa.Table:
        with storage.open(name) as source, pq.ParquetFile(source) as file:
            if not file.num_row_groups:
                return schema.empty_table()
            return file.read(columns=list(columns)).select(list(columns)).cast(schema)

    with ThreadPoolExecutor(_NUM_READERS) as pool:
        tables = list(pool.map(read, storage.list(ROWS_FOLDER, ".parquet")))
    return pa.concat_tables([schema.empty_table(), *tables])
