"""What a run leaves for people beside its data: the data card and the contact sheet."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pipelines.ledger.account import Account
from pipelines.ledger.ledger import Ledger
from pipelines.outputs.contact_sheet import contact_sheet
from pipelines.outputs.data_card import CardFacts, write_data_card
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.committed_unit import ROWS_FOLDER
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows
from pipelines.units.schemas import ADDED_COLUMNS

SHEET_NAME = "contact_sheet.png"

_SHEET_COLUMNS = [
    *IMAGE_COLUMNS, "prompt", "loras", "seed", "method", "width", "height", "dino_min",
    "unet_evaluations", "base_model_digest", *sorted(ADDED_COLUMNS),
]  # fmt: skip

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
) -> None:
    """Write the data card and the contact sheet of an output; damage is named and left out.

    Args:
        storage: The output.
        record: The run's.
        account: Of the manifest.
        ledger: Of the output.
        loras: The manifest's.
        references_folder: Where references are, relative to the output; None if elsewhere.
        references: Where references are kept; None if there are none.
        damages: Gets what cannot be read.
    """
    lacking: set[str] = set()
    table = read_output_rows(storage, _SHEET_COLUMNS, skip=damages.skip, lacks=lacking.add)
    write_data_card(
        storage,
        CardFacts(
            num_images=len(ledger.made),
            num_errors=sum(len(footer.errors) for footer in ledger.footers),
            references_folder=_if_filled(storage, references_folder),
            account=account,
            job=record["job"],
            digests=record["digests"],
            base_models=record.get("base_models", {}),
            loras=loras,
            lacking=lacking,
        ),
    )
    model = PurePosixPath(str(record["job"].get("base_model", ""))).name
    models = ", ".join([model, *record.get("base_models", {})])
    title = f"{len(ledger.made):,} images by {models}"
    sheet = contact_sheet(
        table.to_pylist(),
        lambda row: damages.image(storage, row),
        title=title,
        alone_of=_Alone(references, damages),
    )
    if sheet is not None:
        storage.put(SHEET_NAME, sheet)


class _Alone:
    """What each LoRA of a row makes alone: its reference of the lowest seed."""

    def __init__(self, references: Storage | None, damages: Damages) -> None:
        self._storage = references
        self._damages = damages
        self._first: dict[tuple[str, str], Mapping[str, Any]] = {}
        if references is None:
            return
        found = read_output_rows(references, _REFERENCE_COLUMNS, skip=damages.skip).to_pylist()
        for row in sorted(found, key=lambda row: row["seed"]):
            for lora in row["loras"]:
                self._first.setdefault((row["base_model_digest"], lora["digest"]), row)

    def __call__(self, row: Mapping[str, Any]) -> list[bytes]:
        """Return their images as PNG, in the row's order, as many as there are."""
        if self._storage is None:
            return []
        keys = [(row["base_model_digest"], lora["digest"]) for lora in row["loras"]]
        found = [self._first[key] for key in keys if key in self._first]
        images = [self._damages.image(self._storage, each) for each in found]
        return [image for image in images if image is not None]


def _if_filled(storage: Storage, folder: str | None) -> str | None:
    """Return the folder if it holds committed units."""
    if folder is None or not storage.list(f"{folder}/{ROWS_FOLDER}", ".parquet"):
        return None
    return folder
