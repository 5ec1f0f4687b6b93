"""What a run leaves for people beside its data: data card, contact sheet and ``images.csv``.

The card comes last, and its stamp says that the others are of the same rows.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipelines.ledger.account import Account
from pipelines.ledger.asked_rows import asked_tables
from pipelines.ledger.ledger import Ledger
from pipelines.outputs.card_stamp import content_stamp, writer_stamp
from pipelines.outputs.contact_sheet import SheetRow, contact_sheet
from pipelines.outputs.data_card import CardFacts, has_stamp, restamp, write_data_card
from pipelines.outputs.image_list import IMAGES_CSV, SCORES, ListSource, image_list
from pipelines.outputs.listed_rows import LISTED, ListedRows
from pipelines.outputs.sheet_choice import SheetChoice
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.committed_unit import ROWS_FOLDER, read_units, rows_name
from pipelines.units.damages import Damages
from pipelines.units.output_files import DamagedFileError, read_table

SHEET_NAME = "contact_sheet.png"

RESTAMP_S = 30.0
"""While rows are committed the card gets another stamp as often."""

_SHEET_COLUMNS = [
    *IMAGE_COLUMNS, "prompt", "loras", "seed", "method", "width", "height", "dino_min",
    "unet_evaluations", "base_model_digest",
]  # fmt: skip

_MADE = pa.schema([LISTED.field(name) for name in ("key", *SCORES)])

_REFERENCE_COLUMNS = [*IMAGE_COLUMNS, "loras", "seed", "base_model_digest"]


def publish(
    storage: Storage,
    *,
    record: Mapping[str, Any],
    account: Account,
    ledger: Ledger,
    loras: Sequence[Mapping[str, Any]],
    references_folder: str | None,
    references: Storage | None,
    damages: Damages,
    listed: ListedRows | None = None,
) -> None:
    """Write what the module names; damage is named and left out.

    Args:
        storage: The output.
        record: The run's.
        account: Of the manifest.
        ledger: Of the output.
        loras: The manifest's.
        references_folder: Where references are, relative to the output; None if elsewhere.
        references: Where references are kept; None if there are none.
        damages: Gets what cannot be read.
        listed: Committed rows that were read with the ledger; None for none.
    """
    listed = listed or ListedRows(storage)
    listed.take_rest(ledger)
    for damage in listed.damaged:
        damages.skip(damage)
    choice = SheetChoice()
    made = [_MADE.empty_table()]
    for table in listed.tables():
        choice.add(table)
        made.append(table.select(_MADE.names))
    if record.get("manifest") is not None:
        _write_list(storage, record, pa.concat_tables(made), ledger, damages)
    shown = _shown(storage, choice.chosen(), damages)
    model = PurePosixPath(str(record["job"].get("base_model", ""))).name
    models = ", ".join([model, *record.get("base_models", {})])
    title = f"{ledger.num_made:,} images by {models}"
    sheet = contact_sheet(
        shown,
        lambda row: damages.image(storage, row),
        title=title,
        alone_of=_Alone(references, damages, shown),
    )
    if sheet is not None:
        storage.put(SHEET_NAME, sheet)
    units = reference_units(storage, references_folder)
    write_data_card(
        storage,
        CardFacts(
            num_images=ledger.num_made,
            num_errors=ledger.num_errors,
            references_folder=references_folder if units else None,
            account=account,
            stamp=content_stamp(ledger, units),
            job=record["job"],
            digests=record["digests"],
            base_models=record.get("base_models", {}),
            loras=loras,
            lacking=listed.lacking,
        ),
    )


def announce(
    storage: Storage,
    *,
    record: Mapping[str, Any],
    ledger: Ledger,
    loras: Sequence[Mapping[str, Any]],
) -> None:
    """Stamp the data card as that of a run that begins, and write one if there is none.

    Args:
        storage: The output.
        record: The run's.
        ledger: Of the output.
        loras: The manifest's.
    """
    stamp = writer_stamp(record["run_id"])
    if restamp(storage, stamp):
        return
    write_data_card(
        storage,
        CardFacts(
            num_images=ledger.num_made,
            num_errors=ledger.num_errors,
            references_folder=None,
            account=None,
            stamp=stamp,
            job=record["job"],
            digests=record["digests"],
            base_models=record.get("base_models", {}),
            loras=loras,
        ),
    )


class FreshStamps:
    """Stamps the data card while a run commits units.

    Args:
        storage: The output.
        run_id: The run.
    """

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage = storage
        self._run_id = run_id
        self._num_units = 0
        self._stamped_s = time.monotonic()

    def committed(self) -> None:
        """Count a unit, and stamp the card if it is time."""
        self._num_units += 1
        if time.monotonic() - self._stamped_s >= RESTAMP_S:
            restamp(self._storage, writer_stamp(self._run_id, self._num_units))
            self._stamped_s = time.monotonic()


def is_published(storage: Storage, ledger: Ledger, references_folder: str | None) -> bool:
    """Return whether card and ``images.csv`` are there, and the card is of what is committed.

    Somebody else's card has no stamp; its output is taken to be as the last run left it.
    """
    stamp = content_stamp(ledger, reference_units(storage, references_folder))
    return storage.exists(IMAGES_CSV) and has_stamp(storage, stamp)


def _write_list(
    storage: Storage,
    record: Mapping[str, Any],
    table: pa.Table,
    ledger: Ledger,
    damages: Damages,
) -> None:
    source = ListSource(
        asked=partial(asked_tables, storage, record["manifest"]),
        made=table,
        failed=ledger.last_errors,
        base_model=str(record["job"].get("base_model", "")),
    )
    try:
        storage.put_parts(IMAGES_CSV, image_list(source))
    except DamagedFileError as damage:
        damages.skip(damage)


def _shown(storage: Storage, chosen: Sequence[SheetRow], damages: Damages) -> list[SheetRow]:
    """Return the rows of the contact sheet with all that it shows."""
    keys: dict[str, set[str]] = {}
    for row in chosen:
        keys.setdefault(row["unit_id"], set()).add(row["key"])
    shown: list[SheetRow] = []
    for unit_id, wanted in keys.items():
        try:
            table = read_table(storage, rows_name(unit_id), _SHEET_COLUMNS)
        except DamagedFileError as damage:
            damages.skip(damage)
        except FileNotFoundError:
            continue
        else:
            shown += [row for row in table.to_pylist() if row["key"] in wanted]
    return shown


class _Alone:
    """What each LoRA of a row makes alone: its reference of the lowest seed.

    Args:
        references: Where they are kept; None if there are none.
        damages: Gets what cannot be read.
        rows: All that are asked for, with loras and base_model_digest.
    """

    def __init__(
        self, references: Storage | None, damages: Damages, rows: Sequence[SheetRow]
    ) -> None:
        self._storage = references
        self._damages = damages
        self._first: dict[tuple[str, str], Mapping[str, Any]] = {}
        if references is None:
            return
        wanted = {_alone_key(row, lora) for row in rows for lora in row["loras"]}
        read = partial(read_table, references, columns=_REFERENCE_COLUMNS)
        for table in read_units(references, read, skip=damages.skip) if wanted else ():
            for row in table.to_pylist():
                for key in wanted.intersection(_alone_key(row, lora) for lora in row["loras"]):
                    former = self._first.get(key)
                    if former is None or row["seed"] < former["seed"]:
                        self._first[key] = row

    def __call__(self, row: Mapping[str, Any]) -> list[bytes]:
        """Return their images as PNG, in the row's order, as many as there are."""
        if self._storage is None:
            return []
        keys = [_alone_key(row, lora) for lora in row["loras"]]
        found = [self._first[key] for key in keys if key in self._first]
        images = [self._damages.image(self._storage, each) for each in found]
        return [image for image in images if image is not None]


def _alone_key(row: Mapping[str, Any], lora: Mapping[str, Any]) -> tuple[str, str]:
    return row["base_model_digest"], lora["digest"]


def reference_units(storage: Storage, folder: str | None) -> list[tuple[str, int]]:
    """Return (name, bytes) of the committed units of references; none without a folder."""
    return [] if folder is None else list(storage.sizes(f"{folder}/{ROWS_FOLDER}"))
