"""What a run's end reads of committed rows is read once, and is what units hold."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import BAD_ROW, commit, lora, row, rows

from pipelines.ledger import update_index as indexing
from pipelines.ledger.ledger import survey
from pipelines.outputs.image_list import SCORES
from pipelines.outputs.listed_rows import LISTED, ListedRows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import rows_name
from pipelines.units.output_files import open_parquet
from pipelines.units.output_table import read_output_rows

PLAIN = ["key", "unit_id", "prompt", "seed", "method", "width", "height", *SCORES]


def values(tables: list[pa.Table]) -> list[dict[str, Any]]:
    table = pa.concat_tables([LISTED.empty_table(), *tables])
    return sorted(table.to_pylist(), key=lambda value: value["key"])


def by_reading_units(storage: LocalStorage) -> list[dict[str, Any]]:
    found = read_output_rows(storage, [*PLAIN, "loras"]).to_pylist()
    for value in found:
        value["lora_names"] = [lora["name"] for lora in value.pop("loras")]
    return sorted(found, key=lambda value: value["key"])


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    """Five units, one of which has no row."""
    storage = LocalStorage(tmp_path / "out")
    for number, unit in enumerate((rows(3), [row(7, prompt="ä"), row(8, loras=(lora("ox"),))])):
        commit(storage, f"u{number}", unit)
    commit(storage, "failed", [row(9, prompt=BAD_ROW)])
    commit(storage, "alone", [row(10, loras=())])
    commit(storage, "last", [row(11, method="merge")])
    return storage


def test_rows_read_with_the_ledger_are_those_of_the_units(output: LocalStorage):
    listed = ListedRows(output)
    ledger = survey(output, listed)
    listed.take_rest(ledger)
    assert not listed.damaged
    assert values(list(listed.tables())) == by_reading_units(output)
    assert ledger.num_made == 7


def test_rows_of_indexed_units_are_read_afterwards(
    output: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(indexing, "MIN_UNITS", 2)
    indexing.update_index(survey(output))
    commit(output, "later", [row(12)])
    listed = ListedRows(output)
    ledger = survey(output, listed)
    assert len(values(list(listed.tables()))) == 1
    listed.take_rest(ledger)
    assert not listed.damaged
    assert values(list(listed.tables())) == by_reading_units(output)


def test_a_unit_is_opened_once(output: LocalStorage, monkeypatch: pytest.MonkeyPatch):
    opened: Counter[str] = Counter()
    open_: Callable[..., Any] = output.open

    def counted(name: str) -> Any:
        opened[name] += 1
        return open_(name)

    monkeypatch.setattr(output, "open", counted)
    listed = ListedRows(output)
    listed.take_rest(survey(output, listed))
    assert opened == Counter(output.list("rows", ".parquet"))


def test_damage_that_the_ledger_does_not_see_leaves_its_rows_made(output: LocalStorage):
    name = rows_name("u0")
    with open_parquet(output, name) as file:
        chunk = file.metadata.row_group(0).column(file.schema.names.index("prompt"))
        start = chunk.data_page_offset
    content = bytearray(output.read(name))
    content[start + chunk.total_compressed_size // 2] ^= 0xFF
    Path(output.uri, name).write_bytes(content)
    listed = ListedRows(output)
    ledger = survey(output, listed)
    listed.take_rest(ledger)
    assert not ledger.damaged
    assert ledger.num_made == 7
    assert [damage.name for damage in listed.damaged] == [name]
    assert {value["unit_id"] for value in values(list(listed.tables()))} == {"u1", "alone", "last"}
    assert re.search(r"u0.*is damaged", str(listed.damaged[0]))
