"""Rows kept in tables are the rows that were put in, however they are asked for."""

from itertools import islice

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Region, Row
from manifests.rows import checked_rows, stored_rows
from manifests.rows import table as row_table_module
from manifests.rows.checked_rows import checked_tables, row_columns
from manifests.rows.stored_rows import StoredRows
from manifests.rows.table import row_table, rows_of

loras = st.builds(
    Lora,
    name=st.sampled_from(["cat", "dog"]),
    uri=st.just("/a"),
    digest=st.sampled_from(["ab", "cd"]),
    kind=st.sampled_from(["concept", "style"]),
    weight=st.sampled_from([0.5, 1.0]),
    subject=st.sampled_from([None, "cat"]),
    trigger=st.none(),
    region=st.sampled_from(
        [None, Region(box=(0.0, 0.25, 1 / 3, 1.0)), Region(mask_uri="/m", mask_sha256="ef")]
    ),
    problem=st.sampled_from([None, "is cut off"]),
)
text = st.text(max_size=5)
rows = st.builds(
    Row,
    key=text,
    base_model_digest=st.sampled_from(["m", "n"]),
    row_id=text,
    prompt=text,
    negative_prompt=text,
    loras=st.lists(loras, max_size=2).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    method=st.sampled_from(["clora", "merge"]),
    width=st.sampled_from([8, 16]),
    height=st.just(8),
    sampler=st.sampled_from([SamplerConfig(), SamplerConfig(num_steps=30)]),
    carried_json=text,
    remarks=st.sampled_from([(), ("is odd",), ("is odd", "is late")]),
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    """So that a few rows fill several."""
    monkeypatch.setattr(checked_rows, "_ROWS_PER_TABLE", 3)
    monkeypatch.setattr(stored_rows, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(row_table_module, "_ROWS_PER_CHUNK", 3)


@settings(deadline=None)
@given(st.lists(rows, max_size=12))
def test_rows_come_back_from_a_table_as_they_were(given_rows: list[Row]):
    assert rows_of(row_table(given_rows)) == given_rows


@settings(deadline=None)
@given(st.lists(rows, max_size=12))
def test_checked_rows_are_written_out_as_the_rows_they_are(given_rows: list[Row]):
    tables = list(checked_tables(given_rows))
    written = [row for table in tables for row in rows_of(row_columns(table))]
    assert written == given_rows
    places = [place for table in tables for place in table["place"].to_pylist()]
    assert places == list(islice(range(12), len(given_rows)))


@settings(deadline=None)
@given(st.lists(rows, max_size=12), st.slices(12))
def test_a_store_is_the_sequence_of_its_rows(given_rows: list[Row], part: slice):
    store = StoredRows.of(iter(given_rows))
    assert len(store) == len(given_rows)
    assert list(store) == given_rows
    assert [store[index] for index in range(len(store))] == given_rows
    assert [store[-1 - index] for index in range(len(store))] == given_rows[::-1]
    assert list(store[part]) == given_rows[part]
    with pytest.raises(IndexError):
        store[len(given_rows)]


def test_rows_that_share_their_loras_share_one_value():
    one = Lora(
        name="cat", uri="/a", digest="ab", kind="concept", weight=1.0, subject="cat", trigger=None
    )
    store = StoredRows.of(
        Row(
            key=str(index),
            base_model_digest="m",
            row_id="r",
            prompt="p",
            negative_prompt="",
            loras=(one,),
            seed=index,
            method="clora",
            width=8,
            height=8,
            sampler=SamplerConfig(),
            carried_json="{}",
        )
        for index in range(9)
    )
    assert len({id(row.loras) for row in store}) == 1
