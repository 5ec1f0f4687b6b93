"""The list of a manifest's rows has the name and the content that it had row by row."""

import hashlib
from pathlib import Path

from engine_kit import lora, row

from pipelines.ledger.asked_rows import ASKED, asked_name, asked_tables, loras_text, write_asked
from pipelines.storage.local import LocalStorage

MANIFEST = [
    *(row(seed, row_id=f"r {seed}", carried_json=f'{{"n": "é{seed}"}}') for seed in range(9)),
    row(3, loras=(lora("cat", weight=0.25), lora("dog"))),
    row(4, width=16, method="merge"),
    row(5, loras=(), row_id=""),
]


def test_a_list_is_named_by_all_that_its_rows_are_known_by():
    text = "".join(
        f"{one.key} {one.row_id} {loras_text(one.loras)} {one.carried_json}\n" for one in MANIFEST
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert asked_name(MANIFEST) == f"manifests/{digest}.parquet"
    assert asked_name(MANIFEST[::-1]) != asked_name(MANIFEST)


def test_a_list_holds_every_row_in_order(tmp_path: Path):
    storage = LocalStorage(tmp_path / "out")
    name = write_asked(storage, MANIFEST)
    found = [values for table in asked_tables(storage, name) for values in table.to_pylist()]
    plain = [column for column in ASKED.names if column != "loras"]
    assert [{column: values[column] for column in plain} for values in found] == [
        {column: getattr(one, column) for column in plain} for one in MANIFEST
    ]
    assert [values["loras"] for values in found] == [loras_text(one.loras) for one in MANIFEST]
    storage.put(name, storage.read(name)[:-9])
    assert write_asked(storage, MANIFEST) == name
    assert len(list(asked_tables(storage, name))) == 1
