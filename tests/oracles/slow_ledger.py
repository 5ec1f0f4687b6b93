"""The ledger of an output the slow way: every unit's file is read, and all of it held."""

import hashlib
import json
from collections import Counter
from typing import Any

from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import ROWS_FOLDER, UnitFooter, read_unit
from pipelines.units.output_files import DamagedFileError


def slow_ledger(storage: Storage) -> dict[str, Any]:
    """Return what ``ledger_values`` returns of the ledger."""
    units: list[tuple[list[str], UnitFooter]] = []
    damaged: list[str] = []
    for name in storage.list(ROWS_FOLDER, ".parquet"):
        try:
            units.append(read_unit(storage, name))
        except DamagedFileError:
            damaged.append(name)
    keys = Counter(key for unit, _ in units for key in unit)
    images: list[tuple[str, int | None]] = []
    tries: list[tuple[int, str, dict[str, Any]]] = []
    for unit, footer in units:
        sizes = [*footer.image_sizes, *[None] * len(unit)]
        images += zip(unit, sizes, strict=False)
        tries += [(error["attempt"], footer.unit_id, dict(error)) for error in footer.errors]
    last: dict[str, tuple[int, str, dict[str, Any]]] = {}
    for attempt, unit_id, error in sorted(tries, key=lambda one: one[:2]):
        if error["key"] not in keys:
            last[error["key"]] = (attempt, unit_id, error)
    digest = hashlib.sha256()
    for _, footer in sorted(units, key=lambda unit: unit[1].unit_id):
        if not footer.is_abandoned:
            commit = [footer.unit_id, footer.run_id, footer.failed_at_ms, list(footer.image_sizes)]
            digest.update(json.dumps(commit).encode() + b"\n")
    return {
        "made": set(keys),
        "images": sorted(images, key=str),
        "num_made": len(keys),
        "num_doubled": keys.total() - len(keys),
        "failed": {key: (attempt, unit_id) for key, (attempt, unit_id, _) in last.items()},
        "last_errors": {key: error for key, (_, _, error) in last.items()},
        "num_errors": len(tries),
        "units": sorted(
            (footer.unit_id, len(unit), len(footer.errors), footer.is_abandoned)
            for unit, footer in units
        ),
        "abandoned": {footer.unit_id for _, footer in units if footer.is_abandoned},
        "content_sha256": digest.hexdigest(),
        "damaged": damaged,
    }
