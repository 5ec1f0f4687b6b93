"""Whether an output keeps its promise: every committed row has its image, once, unchanged.

Reads everything and trusts nothing that can be worked out: digests are taken of the bytes in the
table and of the file beside it. Memory holds the images of a few units and the keys of all.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.fusing.fused_files import FUSED_FOLDER, check_fused
from pipelines.leases.lease_record import all_leases, lease_name
from pipelines.leases.makers import maker_ids
from pipelines.ledger.asked_rows import MANIFESTS_FOLDER
from pipelines.ledger.check_index import check_index
from pipelines.ledger.index_files import INDEX_FOLDER
from pipelines.ledger.run_record import read_run_records
from pipelines.outputs.edition import read_edition
from pipelines.outputs.editions import EDITIONS_FOLDER, LATEST, edition_name
from pipelines.planning.plan_files import PLANS_FOLDER, check_record
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import (
    IMAGE_COLUMNS,
    checked_image,
    committed_images,
    image_name,
)
from pipelines.units.committed_unit import ERRORS_FOLDER, ROWS_FOLDER, read_footer
from pipelines.units.output_files import (
    DAMAGED_FOLDER,
    MISSING,
    DamagedFileError,
    open_parquet,
    read_json,
)

_NUM_READERS = 16


@dataclass(frozen=True, kw_only=True)
class UnitCheck:
    """What is known of one committed unit.

    Attributes:
        name: Its file.
        num_rows: Its rows, as far as they can be read.
        damage: Why the unit's file cannot be trusted; None if it can.
        lost_images: Keys of its rows whose image file is missing or another one.
        num_unwritten: Those of them that are no problem: the run that committed the unit is about
            to write them, or ended before it did, and then the next one does; see ``makers``.
        problems: All that is wrong, as sentences that name the place.
    """

    name: str
    num_rows: int
    damage: DamagedFileError | None = None
    lost_images: tuple[str, ...] = ()
    num_unwritten: int = 0
    problems: tuple[str, ...] = ()


def verify_units(storage: Storage) -> Iterator[UnitCheck]:
    """Yield a check of every committed unit of an output."""
    seen: dict[str, str] = {}
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for name in storage.list(ROWS_FOLDER, ".parquet"):
            try:
                rows, run_id = _read(storage, name)
            except DamagedFileError as error:
                yield UnitCheck(name=name, num_rows=0, damage=error, problems=(str(error),))
                continue
            except FileNotFoundError:
                # Set aside since the names were listed.
                continue
            found = list(pool.map(partial(_image_damage, storage), rows))
            is_at_work = any(found) and run_id in maker_ids(storage)
            if any(found):
                # Looked at again: the run may have written them, and gone, before it was asked for.
                found = list(pool.map(partial(_image_damage, storage), rows))
            lost = [damage for damage in found if damage is not None]
            wrong = [damage for damage in lost if not (is_at_work and damage.reason == MISSING)]
            problems = [str(damage) for damage in wrong]
            for row in rows:
                if row["key"] in seen:
                    problems.append(f"{name}, key {row['key']} is also in {seen[row['key']]}")
                seen[row["key"]] = name
            yield UnitCheck(
                name=name,
                num_rows=len(rows),
                lost_images=tuple(
                    row["key"]
                    for row, damage in zip(rows, found, strict=True)
                    if damage is not None
                ),
                num_unwritten=len(lost) - len(wrong),
                problems=tuple(problems),
            )


def damaged_files(storage: Storage) -> Iterator[DamagedFileError]:
    """Yield the damage of every file of an output that is neither a unit nor an image."""
    found: list[DamagedFileError] = []
    read_run_records(storage, skip=found.append)
    yield from found
    for lease in all_leases(storage):
        if lease.is_damaged:
            name = lease_name(lease.epoch)
            yield DamagedFileError(storage.uri, name, "is no lease")
    plans = sorted(name for name, _ in storage.sizes(PLANS_FOLDER))
    tables = [name for name in plans if name.endswith(".parquet")]
    yield from _damaged(storage, tables, _read_through)
    yield from damaged_records(storage)
    for folder in (MANIFESTS_FOLDER, ERRORS_FOLDER):
        yield from _damaged(storage, storage.list(folder, ".parquet"), _read_through)
    yield from _damaged(storage, storage.list(INDEX_FOLDER, ".parquet"), check_index)
    yield from _damaged(storage, storage.list(EDITIONS_FOLDER, ".parquet"), read_edition)
    yield from _damaged(storage, storage.list(FUSED_FOLDER, ".safetensors"), check_fused)
    try:
        number = read_json(storage, LATEST, lambda values: int(values["number"]))
        if not storage.exists(edition_name(number)):
            yield DamagedFileError(storage.uri, LATEST, f"names edition {number}, which is missing")
    except DamagedFileError as error:
        yield error
    except FileNotFoundError:
        if storage.list(EDITIONS_FOLDER, ".parquet"):
            yield DamagedFileError(storage.uri, LATEST, "is missing")


def damaged_records(storage: Storage) -> Iterator[DamagedFileError]:
    """Yield the damage of every record of a plan; see ``check_record``."""
    records = [name for name, _ in storage.sizes(PLANS_FOLDER) if name.endswith(".json")]
    yield from _damaged(storage, sorted(records), check_record)


def nested_outputs(storage: Storage) -> list[str]:
    """Return the folders below ``references`` that are outputs of their own."""
    marker = f"/{ROWS_FOLDER}/unit-"
    names = (
        name
        for name in storage.walk("references")
        if marker in name and f"/{DAMAGED_FOLDER}/" not in name
    )
    return sorted({name.partition(marker)[0] for name in names})


def _read(storage: Storage, name: str) -> tuple[list[dict[str, Any]], str]:
    """Return ``IMAGE_COLUMNS`` of a unit whose every value was read and every image compared.

    And the run that committed it.
    """
    rows: list[dict[str, Any]] = []
    with open_parquet(storage, name) as file:
        run_id = read_footer(file.metadata, name).run_id
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            for _ in committed_images(table):
                pass
            rows += table.select(list(IMAGE_COLUMNS)).to_pylist()
    return rows, run_id


def _damaged(
    storage: Storage, names: Sequence[str], read: Callable[[Storage, str], object]
) -> Iterator[DamagedFileError]:
    """Yield the damage that ``read`` meets in files."""
    for name in names:
        try:
            read(storage, name)
        except DamagedFileError as error:
            yield error
        except FileNotFoundError:
            # Dropped or set aside since the names were listed.
            continue


def _read_through(storage: Storage, name: str) -> None:
    with open_parquet(storage, name) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group, use_threads=False)


def _image_damage(storage: Storage, row: dict[str, Any]) -> DamagedFileError | None:
    try:
        checked_image(storage, image_name(row["key"]), row["image_sha256"])
    except DamagedFileError as error:
        return error
    return None
