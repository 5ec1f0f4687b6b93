"""Images of an output as files with readable names, and ``images.csv`` beside them.

All names are known before the first file is written: rows that would share one, and files of
others in the way, are said at once, and nothing is overwritten. A file that is there and is the
image stays as it is, so an export that broke off is run again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.text.wording import listed
from pipelines.ledger.asked_rows import ASKED
from pipelines.outputs.file_names import (
    FileNameError,
    NameTemplate,
    clashes_sentence,
    name_template,
    without_case,
)
from pipelines.outputs.image_list import (
    BEGINNING,
    IMAGES_CSV,
    ListSource,
    carried_names,
    image_list,
    made_places,
)
from pipelines.storage.error import PlaceError
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages

FILES_AT_ONCE = 64
MAX_NAMED = 20

Progress = Callable[[int, int], None]
"""Gets how many images are done, of how many."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export did.

    Attributes:
        num_written: Files that were written.
        num_kept: Files that were there already.
        num_without: Rows without an image.
        num_shared: Rows that are written twice in the manifest, and share a file.
    """

    num_written: int
    num_kept: int
    num_without: int
    num_shared: int


def write_image_folder(
    storage: Storage,
    target: Storage,
    source: ListSource,
    *,
    template: str,
    damages: Damages,
    progress: Progress,
) -> Exported:
    """Copy the images of a manifest's rows.

    Args:
        storage: The output.
        target: Where the files go.
        source: The rows; ``made`` has ``IMAGE_COLUMNS``, too.
        template: Of the names, see ``file_names``.
        damages: Gets what is damaged; rows whose image is lost have no file.
        progress: Is called as files are done.

    Raises:
        FileNameError: The template cannot be used, or two rows would have one name.
        PlaceError: The target is the output, or files of others are in the way.
        StorageError: A place cannot be read or written now.
    """
    names = name_template(template, carried_names(source.asked), base_model=source.base_model)
    if target.uri.rstrip("/") == storage.uri.rstrip("/"):
        raise PlaceError(f"{target.uri} is the output itself; name another folder for the copies")
    _check_list(target)
    planned = _planned(source, names)
    kept = _kept(target, source, names)
    left, lost, batch = set(planned.names), set[str](), dict[str, bytes]()
    for row, made in _made_rows(source):
        name = names.name(row)
        if name not in left:
            continue
        left.remove(name)
        if name not in kept:
            image = damages.image(storage, made)
            if image is None:
                lost.add(row["key"])
            else:
                batch[name] = image
        if len(batch) == FILES_AT_ONCE:
            target.put_all(batch)
            batch.clear()
        progress(len(planned.names) - len(left), len(planned.names))
    target.put_all(batch)

    def files_of(asked: pa.Table) -> list[str | None]:
        return [None if row["key"] in lost else names.name(row) for row in asked.to_pylist()]

    target.put_parts(IMAGES_CSV, image_list(source, files_of))
    return Exported(
        num_written=len(planned.names) - len(kept) - len(lost),
        num_kept=len(kept),
        num_without=planned.num_without,
        num_shared=planned.num_shared,
    )


@dataclass(frozen=True, kw_only=True)
class _Planned:
    names: set[str]
    num_without: int
    num_shared: int


def _planned(source: ListSource, names: NameTemplate) -> _Planned:
    """Return the names of all files; FileNameError if two rows would share one."""
    owners: dict[str, tuple[str, str]] = {}
    planned: set[str] = set()
    clashes: list[tuple[str, str, str]] = []
    num_clashes = num_rows = num_shared = 0
    for row, _ in _made_rows(source):
        num_rows += 1
        name, own = names.name(row), (row["row_id"], row["key"])
        first = owners.setdefault(without_case(name), own)
        planned.add(name)
        if first == own:
            continue
        num_clashes += 1
        if len(clashes) < MAX_NAMED:
            clashes.append((name, row["row_id"], first[0]))
    if clashes:
        raise FileNameError(clashes_sentence(clashes, num_clashes))
    num_shared = num_rows - len(planned)
    num_asked = sum(table.num_rows for table in source.asked(["key"]))
    return _Planned(names=planned, num_without=num_asked - num_rows, num_shared=num_shared)


def _kept(target: Storage, source: ListSource, names: NameTemplate) -> set[str]:
    """Return the names whose image is there; PlaceError if something else is there."""
    present = {without_case(name): name for name, _ in target.sizes("")}
    kept: set[str] = set()
    others: set[str] = set()
    if not present:
        return kept
    for row, made in _made_rows(source):
        name = names.name(row)
        there = present.get(without_case(name))
        if there is None or there in kept:
            continue
        content = target.read(there)
        is_same = there == name and hashlib.sha256(content).hexdigest() == made["image_sha256"]
        (kept if is_same else others).add(there)
    if others:
        raise PlaceError(_in_the_way(target, sorted(others)))
    return kept


def _made_rows(source: ListSource) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each row of the manifest that is made, and what ``made`` has of it."""
    made = source.made.combine_chunks()
    for asked in source.asked(ASKED.names):
        places = made_places(asked, made)
        found = made.take(places).to_pylist()
        for row, place, values in zip(asked.to_pylist(), places.to_pylist(), found, strict=True):
            if place is not None:
                yield row, values


def _check_list(target: Storage) -> None:
    """Refuse a target whose ``images.csv`` is none of ours."""
    try:
        content = target.read(IMAGES_CSV)
    except FileNotFoundError:
        return
    if not content.startswith(BEGINNING):
        raise PlaceError(_in_the_way(target, [IMAGES_CSV]))


def _in_the_way(target: Storage, names: Sequence[str]) -> str:
    return (
        f"{len(names):,} file(s) in {target.uri} have the name of a copy and are something else "
        f"({listed(names, 3)}); nothing is overwritten: move them away, name another folder, or "
        "add {key} to --name"
    )
