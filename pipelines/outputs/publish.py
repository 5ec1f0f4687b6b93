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

SHEET_NAME = "contact_sheet.png"

_SHEET_COLUMNS = [
    *IMAGE_COLUMNS, "prompt", "loras", "seed", "method", "width", "height", "dino_min",
]  # fmt: skip


def publish(
    storage: Storage,
    *,
    record: Mapping[str, Any],
    account: Account,
    ledger: Ledger,
    loras: Sequence[Mapping[str, Any]],
    references_folder: str | None,
    damages: Damages,
) -> None:
    """Write the data card and the contact sheet of an output; damage is named and left out."""
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
        ),
    )
    rows = read_output_rows(storage, _SHEET_COLUMNS, skip=damages.skip).to_pylist()
    model = PurePosixPath(str(record["job"].get("base_model", ""))).name
    models = ", ".join([model, *record.get("base_models", {})])
    title = f"{len(ledger.made):,} images by {models}"
    sheet = contact_sheet(rows, lambda row: damages.image(storage, row), title=title)
    if sheet is not None:
        storage.put(SHEET_NAME, sheet)


def _if_filled(storage: Storage, folder: str | None) -> str | None:
    """Return the folder if it holds committed units."""
    if folder is None or not storage.list(f"{folder}/{ROWS_FOLDER}", ".parquet"):
        return None
    return folder
