"""A process that reads a unit with one flipped bit after another: ``python -m flip_reader JSON``.

Arrow may end a process that reads a damaged file, so the test that starts this one looks at what it
said last. For every bit this process damages the unit, reads the output in every way the product
does, and prints a line.
"""

import hashlib
import io
import json
import sys
import tarfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from jobs.commands.export import export
from jobs.commands.table import table
from pipelines.ledger.ledger import survey
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import DamagedFileError
from pipelines.units.output_table import read_output_rows
from pipelines.units.schemas import ROWS
from pipelines.upkeep.verify import verify_units

__all__ = ["BEGUN", "main"]

BEGUN = "begun"


@dataclass(frozen=True)
class Reading:
    """What one way to read an output gives, and all that it says of damage."""

    values: object
    said: str


def by_survey(storage: LocalStorage) -> Reading:
    ledger = survey(storage)
    values = (ledger.made, ledger.failed, ledger.last_errors)
    return Reading(values, "\n".join(map(str, ledger.damaged)))


def by_rows(storage: LocalStorage) -> Reading:
    skipped: list[DamagedFileError] = []
    rows = read_output_rows(storage, ROWS.names, skip=skipped.append).sort_by("key")
    return Reading(rows.to_pylist(), "\n".join(map(str, skipped)))


def by_verify(storage: LocalStorage) -> Reading:
    checks = list(verify_units(storage))
    problems = [text for check in checks for text in check.problems]
    return Reading([check.num_rows for check in checks], "\n".join(problems))


def by_table(storage: LocalStorage) -> Reading:
    said = _said(lambda: table(storage.uri))
    return Reading({name: storage.read(name) for name in storage.list("tables", "")}, said)


def by_export(storage: LocalStorage) -> Reading:
    """Export the images; the values are their SHA-256."""
    said = _said(lambda: export(storage.uri, webdataset=f"{storage.uri}-shards"))
    digests: dict[str, str] = {}
    for shard in Path(f"{storage.uri}-shards").glob("*.tar"):
        with tarfile.open(shard) as tar:
            images = [entry for entry in tar.getmembers() if entry.name.endswith(".png")]
            for entry in images:
                content = tar.extractfile(entry).read()
                digests[entry.name] = hashlib.sha256(content).hexdigest()
        shard.unlink()
    return Reading(digests, said)


def _said(command: Callable[[], int]) -> str:
    """Return what a command says, empty if it ended with 0."""
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
        code = command()
    return said.getvalue() if code else ""


WAYS: Mapping[str, Callable[[LocalStorage], Reading]] = {
    "survey": by_survey,
    "rows": by_rows,
    "verify": by_verify,
    "table": by_table,
    "export": by_export,
}


def problem(found: Reading, usual: Reading, way: str, unit: str, *, is_checked: bool) -> str:
    """Return what is neither as usual nor named; without checksums only wrong images count."""
    if is_checked and found.values != usual.values and unit not in found.said:
        return f"{way} gives other values and does not name {unit}"
    if way == "export" and not found.values.items() <= usual.values.items():
        return "export passes on an image that was not committed"
    return ""


def main(text: str) -> None:
    """Read ``unit`` of ``output`` with each of ``bits`` flipped; see ``problem``."""
    asked = json.loads(text)
    storage, unit = LocalStorage(Path(asked["output"])), asked["unit"]
    content = storage.read(unit)
    usual = {way: read(storage) for way, read in WAYS.items()}
    for bit in asked["bits"]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        storage.put(unit, bytes(changed))
        print(json.dumps({BEGUN: bit}), flush=True)
        problems: list[str] = []
        is_named = False
        for way, read in WAYS.items():
            try:
                found = read(storage)
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                problems.append(f"{way}: {traceback.format_exc()}")
                continue
            is_named = is_named or unit in found.said
            problems.append(problem(found, usual[way], way, unit, is_checked=asked["is_checked"]))
        line = {"bit": bit, "problems": list(filter(None, problems)), "is_named": is_named}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
