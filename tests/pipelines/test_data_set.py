"""What a run leaves is a data set that the usual tools open."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest
from engine_kit import BAD_ROW, commit, row, rows

from pipelines.ledger.account import take_account
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs.data_card import CardFacts, data_card, write_data_card
from pipelines.outputs.publish import SHEET_NAME, publish
from pipelines.storage.local import LocalStorage
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

RECORD: dict[str, Any] = {"job": {"base_model": "a|b"}, "digests": {"base_model": "ab"}}


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    """Two units: one with a failed row, one of which all rows failed."""
    storage = LocalStorage(tmp_path / "out")
    commit(storage, "u1", [row(0), row(1), row(2, prompt=BAD_ROW)])
    commit(storage, "u2", [row(3, prompt=BAD_ROW)])
    commit(LocalStorage(tmp_path / "out" / "references"), "r1", rows(2))
    ledger = read_ledger(storage)
    publish(
        storage,
        record=RECORD,
        account=take_account([], before=ledger, after=ledger),
        ledger=ledger,
        loras=[{"name": "a|<b>", "kind": "concept", "subject": None, "digest": "0" * 64}],
        references_folder="references",
        references=LocalStorage(tmp_path / "out" / "references"),
        damages=Damages(note=print),
    )
    return storage


def test_datasets_loads_images_scores_errors_and_references_each_as_its_own(
    output: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    loaded = datasets.load_dataset(output.uri, split="train")
    assert len(loaded) == 2
    assert loaded[0]["image"].size == (8, 8)
    assert {"key", "row_id", "loras", "dino_min", "lora_scores"} <= set(loaded.column_names)
    images = datasets.load_dataset(output.uri, "images", split="train")
    assert images.column_names == loaded.column_names
    scores = datasets.load_dataset(output.uri, "scores", split="train")
    assert set(scores.column_names) == set(loaded.column_names) - {"image"}
    assert scores["key"][:] == loaded["key"][:]
    errors = datasets.load_dataset(output.uri, "errors", split="train")
    assert set(errors["message"]) == {"no subject in it"}
    references = datasets.load_dataset(output.uri, "references", split="train")
    assert len(references) == 2


def test_pyarrow_reads_the_rows_folder_as_one_table(output: LocalStorage):
    table = pads.dataset(f"{output.uri}/rows", format="parquet").to_table()
    assert table.num_rows == 2
    assert read_output_rows(output, ["key", "seed"]).sort_by("seed")["seed"].to_pylist() == [0, 1]


def test_an_output_without_rows_is_an_empty_table(tmp_path: Path):
    assert read_output_rows(LocalStorage(tmp_path / "none"), ["key"]).num_rows == 0


def test_the_card_names_tables_that_are_there_and_escapes_what_names_hold(output: LocalStorage):
    card = output.read("README.md").decode()
    assert "data_files: errors/*.parquet" in card
    assert "data_files: references/rows/*.parquet" in card
    assert "| a\\|&lt;b> | concept |" in card


def test_the_card_names_every_base_model_of_its_job(output: LocalStorage):
    assert "Base model `a|b`, digest `ab`." in output.read("README.md").decode()
    assert "Rows that name" not in output.read("README.md").decode()
    facts = CardFacts(
        num_images=2,
        num_errors=0,
        references_folder=None,
        account=take_account([], before=read_ledger(output), after=read_ledger(output)),
        stamp="content 1",
        job={"base_model": "emoji-world", "base_models": {"port`raits": "/models/p"}},
        digests={"base_model": "ab"},
        base_models={"port`raits": "cd"},
        loras=[],
    )
    assert "Base model `emoji-world`, digest `ab`." in data_card(facts)
    assert "- `port'raits`: `/models/p`, digest `cd`\n" in data_card(facts)


def test_tables_that_are_not_there_are_not_named(output: LocalStorage):
    ledger = read_ledger(LocalStorage(Path(output.uri) / "references"))
    facts = CardFacts(
        num_images=2,
        num_errors=0,
        references_folder=None,
        account=take_account([], before=ledger, after=ledger),
        stamp="content 1",
        job={},
        digests={},
        loras=[],
    )
    assert "errors/*" not in data_card(facts)
    assert "config_name: references" not in data_card(facts)
    output.put("README.md", b"# Mine\n")
    assert not write_data_card(output, facts)
    assert output.read("README.md") == b"# Mine\n"


def test_the_contact_sheet_lies_beside_the_card(output: LocalStorage):
    assert output.read(SHEET_NAME).startswith(b"\x89PNG")
