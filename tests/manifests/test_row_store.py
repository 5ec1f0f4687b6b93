"""Rows kept in columns are the rows that were put in, however they are asked for."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from manifests import row_store
from manifests.resolved import ResolvedLora, ResolvedRow
from manifests.row_store import RowStore

loras = st.builds(
    ResolvedLora,
    name=st.sampled_from(["cat", "dog"]),
    uri=st.just("/a"),
    digest=st.sampled_from(["ab", "cd"]),
    kind=st.sampled_from(["concept", "style"]),
    weight=st.sampled_from([0.5, 1.0]),
    subject=st.sampled_from([None, "cat"]),
    trigger=st.none(),
    problem=st.sampled_from([None, "is cut off"]),
)
text = st.text(max_size=5)
rows = st.builds(
    ResolvedRow,
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
    sampler_json=st.sampled_from(["{}", '{"num_steps":3}']),
    carried_json=text,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    """So that a few rows fill several."""
    monkeypatch.setattr(row_store, "_ROWS_PER_CHUNK", 3)


@settings(deadline=None)
@given(st.lists(rows, max_size=12), st.slices(12))
def test_a_store_is_the_sequence_of_its_rows(given_rows: list[ResolvedRow], part: slice):
    store = RowStore(iter(given_rows))
    assert len(store) == len(given_rows)
    assert list(store) == given_rows
    assert [store[index] for index in range(len(store))] == given_rows
    assert [store[-1 - index] for index in range(len(store))] == given_rows[::-1]
    assert list(store[part]) == given_rows[part]
    with pytest.raises(IndexError):
        store[len(given_rows)]


def test_rows_that_share_their_loras_share_one_value():
    one = ResolvedLora(
        name="cat", uri="/a", digest="ab", kind="concept", weight=1.0, subject="cat", trigger=None
    )
    store = RowStore(
        ResolvedRow(
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
            sampler_json="{}",
            carried_json="{}",
        )
        for index in range(9)
    )
    assert len({id(row.loras) for row in store}) == 1
