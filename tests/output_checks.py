"""What must hold of an output after a power cut, whatever it met."""

import hashlib
from collections.abc import Iterator, Set
from pathlib import Path

from pipelines.ledger.ledger import LedgerError, read_ledger
from pipelines.ledger.tries import ATTEMPTS_FOLDER
from pipelines.outputs.editions import LATEST, edition_name, newest_edition
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, read_json
from pipelines.upkeep.verify import damaged_files, verify_units

__all__ = ["OUTPUTS", "Fact", "broken", "named_edition"]

OUTPUTS = ("", "references")
"""Folders of an output that hold units."""

Fact = tuple[str, str, str | int]
"""What somebody learned of one of ``OUTPUTS``: a row is ``made`` or has ``failed``, by its key; a
``unit`` is committed, by its id; an ``edition`` is the latest, by its number; a damaged content is
``kept``, by its SHA-256; the output is ``repaired``."""


def broken(out: Path, facts: Set[Fact]) -> Iterator[str]:
    """Yield what does not hold of the output in the folder ``out``, as sentences."""
    for path in out.rglob("*"):
        is_finished = path.is_file() and not path.name.startswith(".")
        if is_finished and ATTEMPTS_FOLDER not in path.parts and not path.stat().st_size:
            yield f"{path.relative_to(out)} is empty"
    for output in OUTPUTS:
        storage = LocalStorage(out / output)
        yield from _broken_rows(storage, {(what, name) for what, at, name in facts if at == output})
        for check in verify_units(storage):
            yield from check.problems
        yield from map(str, damaged_files(storage))
    kept = {digest for what, _, digest in facts if what == "kept"}
    if kept:
        here = (path.read_bytes() for path in out.rglob("*") if path.is_file())
        for digest in kept.difference(hashlib.sha256(content).hexdigest() for content in here):
            yield f"the damaged content {digest} is gone"
    numbers = [int(number) for what, _, number in facts if what == "edition"]
    yield from _broken_editions(LocalStorage(out), max(numbers, default=0))


def _broken_rows(storage: Storage, facts: Set[tuple[str, str | int]]) -> Iterator[str]:
    try:
        ledger = read_ledger(storage)
    except LedgerError as error:
        yield str(error)
        return
    if ledger.num_doubled:
        yield f"{ledger.num_doubled} rows are doubled"
    # A row that failed may have been made since.
    holds = {
        "made": ledger.made,
        "failed": ledger.made | ledger.failed.keys(),
        "unit": ledger.unit_ids,
    }
    for what, name in facts:
        if name not in holds.get(what, {name}):
            yield f"{what} {name}: it holds no more"


def _broken_editions(storage: Storage, learned: int) -> Iterator[str]:
    newest = newest_edition(storage, note=lambda _text: None)
    number = 0 if newest is None else newest[1].number
    named = named_edition(storage)
    if min(number, named) < learned:
        yield f"edition {learned}: it is the latest no more"
    if named and not storage.exists(edition_name(named)):
        yield f"{LATEST} names edition {named}, which is gone"
    for line in [] if newest is None else newest[0].to_pylist():
        is_there = storage.exists(line["image"])
        digest = hashlib.sha256(storage.read(line["image"]) if is_there else b"").hexdigest()
        if digest != line["image_sha256"]:
            yield f"edition {number} lists {line['image']}, which is not there"


def named_edition(storage: Storage) -> int:
    """Return the number that ``latest.json`` names, 0 if there is none that can be read."""
    try:
        return read_json(storage, LATEST, lambda values: int(values["number"]))
    except (FileNotFoundError, DamagedFileError):
        return 0
