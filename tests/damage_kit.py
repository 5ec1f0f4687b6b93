"""The files of an output, a kind each, and what a disk or a tool may make of one.

Each kind stands for one file of a world and has a donor: another file of the output, of the same
kind if there is one, whose content may end up under its name.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from damage_world import World

from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import read_unit, rows_name, unit_id_of

__all__ = [
    "DAMAGES",
    "KILLED_KINDS",
    "WHOLE_KINDS",
    "Damage",
    "Place",
    "contents",
    "places",
    "put_back",
]

REFERENCES = "references/dino-d1d1d1d1d1d1"

WHOLE_KINDS = (
    "unit", "image", "errors", "plan of images", "record of a plan", "plan of references",
    "centroids", "manifest", "run record", "earlier run record", "lease", "earlier lease",
    "edition", "earlier edition", "latest.json", "README.md", "metrics.prom", "contact sheet",
    "reference unit", "reference image", "thumbnail", "report page", "tables", "maps",
)  # fmt: skip
"""Kinds of an output of which all is made."""

KILLED_KINDS = (
    "unit", "image", "errors", "plan of images", "record of a plan", "manifest", "run record",
    "lease", "earlier lease", "edition", "reference unit", "reference image", "mark",
)  # fmt: skip
"""Kinds that a run reads when it continues one that was killed."""


@dataclass(frozen=True)
class Place:
    """A file of an output, and the one whose content may stand in it; names in the output."""

    name: str
    donor: str


def places(world: World) -> dict[str, Place]:
    """Return the file that stands for each kind."""
    out = world.out

    def found(pattern: str) -> list[str]:
        return sorted(path.relative_to(out).as_posix() for path in out.glob(pattern))

    (errors,) = found("errors/*")
    unit = rows_name(unit_id_of(errors))
    images = [image_name(key) for key in read_unit(LocalStorage(out), unit)[0]]
    thumbs, tables = found("report/thumbs/*"), found("tables/*")
    by_kind = {
        "unit": (unit, next(name for name in found("rows/*") if name != unit)),
        "image": (images[0], images[1]),
        "errors": (errors, unit),
        "plan of images": _last(found("plans/*/images-00000.parquet")),
        "record of a plan": _last(found("plans/*/images.json")),
        "plan of references": (
            found("plans/*/references-00000.parquet")[-1],
            found("plans/*/images-00000.parquet")[-1],
        ),
        "centroids": _last(found("plans/*/centroids.parquet")),
        "manifest": _asked_last(world, found("manifests/*")),
        "run record": _last(found("runs/*")),
        "earlier run record": _last(found("runs/*")[::-1]),
        "lease": _last(found("leases/*")),
        "earlier lease": _last(found("leases/*")[::-1]),
        "edition": _last(found("editions/*")),
        "earlier edition": _last(found("editions/*")[::-1]),
        "latest.json": ("latest.json", found("runs/*")[-1]),
        "README.md": ("README.md", "metrics.prom"),
        "metrics.prom": ("metrics.prom", "README.md"),
        "contact sheet": ("contact_sheet.png", images[0]),
        "reference unit": (found(f"{REFERENCES}/rows/*")[0], unit),
        "reference image": _last(found(f"{REFERENCES}/images/*/*")),
        "thumbnail": _last(thumbs),
        "report page": ("report/index.html", "report/table.md"),
        "tables": _last(tables),
        "maps": (found("maps/*")[0], thumbs[-1]),
    }
    marks = found("attempts/*/*")
    if marks:
        by_kind["mark"] = (marks[0], found("runs/*")[0])
    return {kind: Place(*names) for kind, names in by_kind.items()}


def _last(names: list[str]) -> tuple[str, str]:
    return names[-1], names[0]


def _asked_last(world: World, names: list[str]) -> tuple[str, str]:
    """Return the manifest that was written last, and another."""
    by_age = sorted(names, key=lambda name: (world.out / name).stat().st_mtime_ns)
    return by_age[-1], by_age[0]


def _missing(path: Path, _donor: Path) -> None:
    path.unlink()


def _empty(path: Path, _donor: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path, _donor: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _flipped(path: Path, _donor: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[_among_keys(path) if path.parent.name == "rows" else len(content) // 2] ^= 1
        path.write_bytes(content)


def _among_keys(path: Path) -> int:
    """Return a place in a unit that every command reads; most read no images, which are the rest.

    Flips anywhere in a unit are ``test_flipped_units``.
    """
    group = pq.read_metadata(path).row_group(0)
    (keys,) = [
        column
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema == "key"
    ]
    # The values are in the dictionary, which ends where the data page begins.
    return keys.data_page_offset - 4


def _swapped(path: Path, donor: Path) -> None:
    path.write_bytes(donor.read_bytes())


Damage = Callable[[Path, Path], None]

DAMAGES: Mapping[str, Damage] = {
    "missing": _missing,
    "empty": _empty,
    "cut in half": _cut,
    "a bit flipped": _flipped,
    "another's content": _swapped,
}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by name."""
    found: dict[str, bytes] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = f"{place}/{name}"
            with open(path, "rb") as file:  # noqa: PTH123 - thousands of times
                found[path[len(str(folder)) + 1 :]] = file.read()
    return found


def put_back(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold ``files`` and no others."""
    present = contents(folder)
    for name in present.keys() - files.keys():
        (folder / name).unlink()
    for name, content in files.items():
        if present.get(name) != content:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
