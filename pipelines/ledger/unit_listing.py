"""The committed units of an output as they are listed: names, and which version of each file."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

from manifests.tables.text_numbers import TextPlaces
from pipelines.ledger.unit_rows import IDENTITY_BYTES, file_identity
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import ROWS_FOLDER, rows_name, unit_id_of

_LISTED_AT_ONCE = 8192


class UnitListing:
    """Units that are committed, and which of them were found in an index.

    Args:
        storage: The output; it is listed here.

    Attributes:
        has_versions: The store says which version of each file is there.
    """

    def __init__(self, storage: Storage) -> None:
        self._strangers: list[str] = []
        self.has_versions = True
        ids: list[pa.Array] = [pa.array([], pa.string())]
        identities: list[pa.Array] = [pa.array([], pa.binary(IDENTITY_BYTES))]
        listed = self._units(storage)
        while some := list(islice(listed, _LISTED_AT_ONCE)):
            ids.append(pa.array([unit_id for unit_id, _ in some], pa.string()))
            identities.append(
                pa.array([identity for _, identity in some], pa.binary(IDENTITY_BYTES))
            )
        self._ids = pa.concat_arrays(ids)
        self._identities = _as_numbers(pa.concat_arrays(identities))
        self._places = TextPlaces(self._ids)
        self._is_found = np.zeros(len(self._ids), bool)

    def _units(self, storage: Storage) -> Iterator[tuple[str, bytes]]:
        for name, num_bytes, version in storage.versions(ROWS_FOLDER):
            if not name.endswith(".parquet"):
                continue
            unit_id = unit_id_of(name)
            if rows_name(unit_id) == name:
                self.has_versions &= bool(version)
                yield unit_id, file_identity(num_bytes, version)
            else:
                self._strangers.append(name)

    def current_rows(self, index: pa.Table) -> np.ndarray:
        """Return the numbers of rows whose unit is listed as it was indexed, and was not found yet.

        Args:
            index: With the columns unit_id and file_identity.
        """
        ids, identities = (index[name].combine_chunks() for name in ("unit_id", "file_identity"))
        places = self._places.places(ids)
        if not len(self._ids):
            return np.array([], np.int32)
        is_current = (places >= 0) & ~self._is_found[places]
        is_current &= (self._identities[places] == _as_numbers(identities)).all(axis=1)
        rows = np.flatnonzero(is_current)
        _, first = np.unique(places[rows], return_index=True)
        return rows[np.sort(first)].astype(np.int32)

    def found(self, unit_ids: pa.Array) -> None:
        """Note that units need not be read."""
        self._is_found[self._places.places(unit_ids)] = True

    def left(self) -> Iterator[tuple[str, bytes]]:
        """Yield (name, identity) of the files that are to be read, sorted."""
        places = np.flatnonzero(~self._is_found)
        names = [(rows_name(self._ids[int(place)].as_py()), int(place)) for place in places]
        # A file that is not named as its unit is has no place in an index.
        names += [(name, -1) for name in self._strangers]
        for name, place in sorted(names):
            yield name, (file_identity(0, "") if place < 0 else self._identities[place].tobytes())


def _as_numbers(identities: pa.Array) -> np.ndarray:
    """Return identities as two numbers each [identity, 2]."""
    content = identities.buffers()[1]
    if not len(identities) or content is None:
        return np.zeros((0, 2), np.uint64)
    numbers = np.frombuffer(content, np.uint64).reshape(-1, 2)
    return numbers[identities.offset : identities.offset + len(identities)]
