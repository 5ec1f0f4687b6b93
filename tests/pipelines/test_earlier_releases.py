"""Outputs of earlier releases, whose units lack columns that were added later, stay readable."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from engine_kit import BASE_MODEL, commit, lora, rows

from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.tables import table_files
from pipelines.ledger.account import take_account
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs.publish import publish
from pipelines.planning.references import reference_id
from pipelines.report.write import write_report
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import rows_name
from pipelines.units.damages import Damages
from pipelines.units.output_files import DamagedFileError, encode_parquet, open_parquet
from pipelines.units.output_table import read_output_rows
from pipelines.units.schemas import ADDED_COLUMNS, ROWS

FOOTER_KEY = b"clora.unit"
CENTROIDS = {
    reference_id(BASE_MODEL, lora(name)): np.random.default_rng(seed).random(12, np.float32)
    for seed, name in enumerate(("cat", "dog"))
}


def forget_columns(storage: LocalStorage, unit_id: str, names: frozenset[str]) -> None:
    """Write a committed unit again as a release without these columns would have."""
    name = rows_name(unit_id)
    with open_parquet(storage, name) as file:
        table, metadata = file.read(use_threads=False), file.metadata.metadata
    schema = pa.schema([field for field in ROWS if field.name not in names], metadata=ROWS.metadata)
    footer = {FOOTER_KEY: metadata[FOOTER_KEY]}
    content = encode_parquet(name, [table.select(schema.names)], schema, metadata=footer)
    storage.delete(name)
    storage.put(name, content)


def publish_output(storage: LocalStorage, damages: Damages) -> None:
    ledger = read_ledger(storage)
    publish(
        storage,
        record={"job": {"base_model": "m"}, "digests": {"base_model": "ab"}},
        account=take_account([], before=ledger, after=ledger),
        ledger=ledger,
        loras=[],
        references_folder="references",
        references=None,
        damages=damages,
    )


@pytest.fixture
def mixed(tmp_path: Path) -> LocalStorage:
    """Two rows of an earlier release, and two that were made later in the same output."""
    storage = LocalStorage(tmp_path / "out")
    made = rows(4)
    commit(storage, "u1", made[:2], centroids=CENTROIDS)
    commit(storage, "u2", made[2:], centroids=CENTROIDS)
    forget_columns(storage, "u1", ADDED_COLUMNS)
    return storage


def test_what_a_release_did_not_have_is_empty(mixed: LocalStorage):
    columns = ["seed", "dino_apart", "dino_min", "key"]
    table = read_output_rows(mixed, columns).sort_by("seed")
    assert table.column_names == columns
    assert [score is None for score in table["dino_apart"].to_pylist()] == [
        True,
        True,
        False,
        False,
    ]
    assert table["dino_min"].null_count == 0


def test_a_column_that_every_release_had_is_damage_where_it_is_missing(mixed: LocalStorage):
    forget_columns(mixed, "u1", ADDED_COLUMNS | {"dino_min"})
    with pytest.raises(DamagedFileError, match="u1"):
        read_output_rows(mixed, ["key", "dino_min"])


def test_a_release_may_lack_one_of_the_columns_that_were_added(tmp_path: Path):
    storage = LocalStorage(tmp_path / "out")
    old, new = rows(2, remarks=("is odd",))
    commit(storage, "u1", [old], centroids=CENTROIDS)
    commit(storage, "u2", [new], centroids=CENTROIDS)
    forget_columns(storage, "u1", frozenset({"remarks"}))
    table = read_output_rows(storage, ["seed", "remarks", "dino_apart"]).sort_by("seed")
    assert table["remarks"].to_pylist() == [None, ["is odd"]]
    assert table["dino_apart"].null_count == 0
    write_report(
        storage,
        evaluate(storage, damages=Damages(note=print)),
        title="mixed",
        facts=[],
        damages=Damages(note=print),
    )
    assert storage.read("report/data/details-0.js").decode().count('["remark","is odd"]') == 1


def test_tables_report_and_card_are_made_of_old_and_new_rows_together(mixed: LocalStorage):
    damages = Damages(note=print)
    evaluation = evaluate(mixed, damages=damages)
    (arm,) = evaluation.comparison.arms
    assert arm.means["dino_min"].num_values == 4
    assert arm.means["dino_apart"].num_values == 2
    lines = list(csv.DictReader(io.StringIO(table_files(evaluation)["scores.csv"].decode())))
    assert sorted(line["dino_apart"] == "" for line in lines) == [False, False, True, True]
    write_report(mixed, evaluation, title="mixed", facts=[], damages=damages)
    details = mixed.read("report/data/details-0.js").decode()
    assert details.count(json.dumps("DINO apart")) == 2
    publish_output(mixed, damages)
    assert mixed.exists("contact_sheet.png")
    assert not damages.left_out


@pytest.mark.parametrize("old", [(), ("u1",), ("u2",), ("u1", "u2")])
def test_datasets_loads_old_and_new_rows_together_whichever_comes_first(
    old: tuple[str, ...], tmp_path: Path
):
    datasets = pytest.importorskip("datasets")
    storage = LocalStorage(tmp_path / "out")
    made = rows(4)
    for unit_id, unit in (("u1", made[:2]), ("u2", made[2:])):
        commit(storage, unit_id, unit, centroids=CENTROIDS)
        commit(LocalStorage(tmp_path / "out" / "references"), unit_id, unit)
    for unit_id in old:
        forget_columns(storage, unit_id, ADDED_COLUMNS)
        forget_columns(LocalStorage(tmp_path / "out" / "references"), unit_id, ADDED_COLUMNS)
    publish_output(storage, Damages(note=print))
    for config in ("images", "scores", "references"):
        loaded = datasets.load_dataset(
            storage.uri, config, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(loaded) == 4
        has_added = set(loaded.column_names) >= ADDED_COLUMNS
        assert has_added == (not old and config != "references")


def test_an_output_of_an_earlier_release_alone_has_no_figure_for_it(mixed: LocalStorage):
    forget_columns(mixed, "u2", ADDED_COLUMNS)
    evaluation = evaluate(mixed, damages=Damages(note=print))
    assert "dino_apart" not in evaluation.comparison.arms[0].means
    assert "DINO apart |" not in table_files(evaluation)["table.md"].decode()
