"""An edition of a catalog: which image stands for which row, as one immutable table.

Images lie under their keys and never change, so an edition is a list: row by row the key, the image
and its digest. Two editions are compared by row id. Nothing here writes; see ``editions``.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from clora_core.recipe.row import Row
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import image_name
from pipelines.units.output_files import encode_parquet, open_parquet

EDITION = pa.schema(
    [
        ("row_id", pa.string()),
        ("key", pa.string()),
        ("image", pa.string()),
        ("image_sha256", pa.string()),
        ("prompt", pa.string()),
        ("loras", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("carried_json", pa.string()),
    ]
)
"""Columns of an edition; ``image`` is the file's name in the output."""

_FACTS = b"clora.edition"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Row ids of an edition against those of the one before."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """Return e.g. ``2 added, 10 changed, 0 removed``."""
        return (
            f"{len(self.added):,} added, {len(self.changed):,} changed, "
            f"{len(self.removed):,} removed"
        )


@dataclass(frozen=True, kw_only=True)
class EditionFacts:
    """What an edition's file says of itself, in its footer.

    Attributes:
        number: From 1, in the order of publishing.
        digest: Of its rows; equal for equal catalogs.
        read_at: When its rows were read, ISO 8601, UTC: the newer of two runs is the later here.
        run_id: The run that published it.
        num_rows: Rows of the catalog that have an image.
        num_missing: Rows of the catalog that have none, and are not in the table.
        num_added: Rows that the edition before did not have.
        num_changed: Rows with another image than there.
        num_removed: Rows that it had and this one has not.
    """

    number: int
    digest: str
    read_at: str
    run_id: str
    num_rows: int
    num_missing: int
    num_added: int
    num_changed: int
    num_removed: int


def edition_table(rows: Iterable[Row], image_digests: Mapping[str, str]) -> pa.Table:
    """Return the edition of ``rows``, in order of row id, of those that have an image.

    Args:
        rows: Of the catalog.
        image_digests: sha256 of the image of every key that is made.
    """
    values = [
        {
            "row_id": row.row_id,
            "key": row.key,
            "image": image_name(row.key),
            "image_sha256": image_digests[row.key],
            "prompt": row.prompt,
            "loras": [lora.name for lora in row.loras],
            "seed": row.seed,
            "method": row.method,
            "carried_json": row.carried_json,
        }
        for row in rows
        if row.key in image_digests
    ]
    return pa.Table.from_pylist(sorted(values, key=lambda value: value["row_id"]), schema=EDITION)


def edition_digest(table: pa.Table) -> str:
    """Return what tells two editions apart: every row, in order."""
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def compare(new: pa.Table, old: pa.Table | None) -> Changes:
    """Return which rows of ``new`` are not in ``old``, have another image there, or are gone."""
    before = {} if old is None else _keys(old)
    after = _keys(new)
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(
            sorted(name for name in after.keys() & before.keys() if after[name] != before[name])
        ),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def encode_edition(name: str, table: pa.Table, facts: EditionFacts) -> bytes:
    """Return the edition's file: Parquet, the facts in its footer."""
    metadata = {_FACTS: json.dumps(asdict(facts)).encode()}
    return encode_parquet(name, [table], EDITION, metadata=metadata)


def read_edition(storage: Storage, name: str) -> tuple[pa.Table, EditionFacts]:
    """Return an edition's rows and facts.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: It is no edition.
    """
    with open_parquet(storage, name) as file:
        facts = EditionFacts(**json.loads((file.metadata.metadata or {})[_FACTS]))
        if not name.endswith(f"/{facts.number:09d}.parquet"):
            raise ValueError(f"the content of edition {facts.number}")
        table = file.read(use_threads=False)
        return table.select(EDITION.names).cast(EDITION), facts


def _keys(table: pa.Table) -> dict[str, Any]:
    names, keys = table["row_id"].to_pylist(), table["key"].to_pylist()
    return dict(zip(names, keys, strict=True))
