"""What a run leaves for people needs of every committed row, read while units are open anyway.

A run's end reads each unit for the account. Its rows' scores, and what a contact sheet is chosen
by, are read from the same open file. Units in an index are not opened for the account, and are read
afterwards. The rows are kept on disk, and taken some thousand at a time.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.spool import Spool
from pipelines.ledger.ledger import Ledger
from pipelines.outputs.image_list import SCORES
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import in_threads, rows_name, unit_id_of
from pipelines.units.output_files import DamagedFileError, OpenParquet, naming_damage, open_parquet
from pipelines.units.schemas import ADDED_COLUMNS, ROWS

_NAMES = pa.list_(pa.string())
LISTED = pa.schema(
    [
        *(ROWS.field(name) for name in ("key", "prompt", "seed", "method", "width", "height")),
        *(ROWS.field(name) for name in SCORES),
        ("lora_names", _NAMES),
        ("unit_id", pa.string()),
    ]
)
"""One committed row."""

_NO_KEYS = pa.nulls(0, pa.string())
_READ = [name for name in LISTED.names if name in ROWS.names and name not in ("key", "unit_id")]
_LORA_NAME = "loras.list.element.name"
_ROWS_PER_TABLE = 8_192

Read = tuple[str, pa.Table, frozenset[str]] | DamagedFileError
"""A unit, its rows, and which of ``ADDED_COLUMNS`` it does not have; or what is wrong with it."""


class ListedRows:
    """Rows (``LISTED``) of the committed units of an output.

    Args:
        storage: The output.

    Attributes:
        damaged: Units that are damaged, whose rows are left out.
        lacking: Columns that units of earlier releases do not have.
    """

    def __init__(self, storage: Storage) -> None:
        self.damaged: list[DamagedFileError] = []
        self.lacking: set[str] = set()
        self._storage = storage
        self._taken: set[str] = set()
        self._held: list[pa.Table] = []
        self._num_held = 0
        self._spool = Spool(LISTED, what="the committed rows")

    def read(self, name: str, file: OpenParquet, keys: pa.Array) -> Read:
        """Return the rows of a unit; what is wrong with columns that a ledger has not is no error.

        Args:
            name: The unit's file.
            file: The same, open.
            keys: Of its rows.
        """
        try:
            with naming_damage(self._storage, name):
                unit_id = unit_id_of(name)
                lacking = ADDED_COLUMNS - frozenset(file.schema_arrow.names)
                return unit_id, _rows(unit_id, file, keys), lacking
        except DamagedFileError as error:
            return error

    def take(self, found: Read) -> None:
        """Keep the rows of a unit."""
        if isinstance(found, DamagedFileError):
            self._taken.add(unit_id_of(found.name))
            self.damaged.append(found)
            return
        unit_id, rows, lacking = found
        self._taken.add(unit_id)
        self.lacking |= lacking
        if len(rows):
            self._held.append(rows)
            self._num_held += len(rows)
        if self._num_held >= _ROWS_PER_TABLE:
            self._put_down()

    def take_rest(self, ledger: Ledger) -> None:
        """Read the units of a ledger that were not read with it."""
        for chunk in ledger.units["unit_id"].chunks:
            left = (unit_id for unit_id in chunk.to_pylist() if unit_id not in self._taken)
            for found in in_threads(self._read_alone, map(rows_name, left)):
                if found is not None:
                    self.take(found)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows that were taken, some thousand at a time."""
        self._put_down()
        yield from self._spool.tables()

    def _read_alone(self, name: str) -> Read | None:
        try:
            with open_parquet(self._storage, name) as file:
                keys = file.read(columns=["key"], use_threads=False)["key"].cast(pa.string())
                return self.read(name, file, pa.concat_arrays([_NO_KEYS, *keys.chunks]))
        except DamagedFileError as error:
            return error
        except FileNotFoundError:
            return None

    def _put_down(self) -> None:
        if self._held:
            self._spool.add(pa.concat_tables(self._held).combine_chunks())
        self._held, self._num_held = [], 0


def _rows(unit_id: str, file: OpenParquet, keys: pa.Array) -> pa.Table:
    if not len(keys):
        return LISTED.empty_table()
    read = file.read(columns=[*_READ, _LORA_NAME], use_threads=False)
    if "loras" not in read.column_names:  # another writer's name for the elements of a list
        read = file.read(columns=[*_READ, "loras"], use_threads=False)
    columns = {
        **{name: read[name] for name in read.column_names if name in _READ},
        "key": keys,
        "lora_names": pa.concat_arrays([_names(chunk) for chunk in read["loras"].chunks]),
        "unit_id": pa.array(np.full(len(keys), unit_id)),
    }
    for name in ADDED_COLUMNS.intersection(LISTED.names).difference(columns):
        columns[name] = pa.nulls(len(keys), LISTED.field(name).type)
    return pa.table({name: columns[name] for name in LISTED.names}).cast(LISTED)


def _names(loras: pa.ListArray) -> pa.Array:
    """Return the names of each row's LoRAs."""
    names = arrow.struct_field(loras.values, [loras.type.value_type.get_field_index("name")])
    return pa.ListArray.from_arrays(loras.offsets, names).cast(_NAMES)
